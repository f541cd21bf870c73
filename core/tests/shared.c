/* rindle-shared FILE...: the C API by itself, from C99 and the shared library: each file's golden vector by whole rows, and
 * frame by frame through a state that is saved and restored into another stream after every frame.
 * Exit status: 0 all is as the files say, 1 something differs or is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/rindle.h"

enum { LARGEST = 1 << 24 }; /* bytes of a file of parts */

typedef struct golden {
    const rindle_model *model;
    size_t batch, frames, in, out, made; /* made: frames of the output */
    const int16_t *codes, *outputs;      /* inputs and outputs as codes, or NULL */
    const int32_t *lengths, *ids;        /* ids in the stead of codes, or NULL */
    const float *floats;                 /* in the stead of outputs, or NULL */
    float *inputs, *y;                   /* inputs as floats; what is found, [batch, made, out] */
} golden;

static rindle_status run(const golden *g, rindle_stream *stream) {
    const size_t frames = g->batch * g->frames, values = g->batch * g->made * g->out;
    return g->ids ? rindle_run_ids(stream, g->ids, frames, g->batch, g->frames, g->lengths, g->y, values)
                  : rindle_run(stream, g->inputs, frames * g->in, g->batch, g->frames, g->lengths, g->y, values);
}

static rindle_status step(const golden *g, rindle_stream *stream, size_t frame, float *y) {
    return g->ids ? rindle_step_id(stream, g->ids[frame], y, g->out)
                  : rindle_step(stream, g->inputs + frame * g->in, g->in, y, g->out);
}

/* How many values of y [count] are not the golden ones from `first` on. Floats are close, codes are equal. */
static long differing(const golden *g, const float *y, size_t first, size_t count) {
    long wrong = 0;
    for (size_t i = 0; i < count; ++i) {
        const double wanted = g->floats ? (double)g->floats[first + i]
                                        : (double)(float)(g->outputs[first + i] * rindle_output_scale(g->model));
        const double room = g->floats ? 1e-5 * fmax(1.0, fabs(wanted)) : 0.0;
        wrong += !(fabs((double)y[i] - wanted) <= room);
    }
    return wrong;
}

/* Two streams take turns; between two frames the state goes from the one to the other as bytes. Differences, or -1. */
static long carried(const golden *g, rindle_stream *one, rindle_stream *other) {
    const size_t size = rindle_state_size(g->model);
    const int sequence = rindle_output_is_sequence(g->model);
    void *state = malloc(size);
    long wrong = state ? 0 : -1;
    for (size_t row = 0; wrong >= 0 && row < g->batch; ++row) {
        if (rindle_reset(one)) wrong = -1;
        for (size_t t = 0; wrong >= 0 && t < (size_t)g->lengths[row]; ++t) {
            rindle_stream *const before = one;
            const int last = t + 1 == (size_t)g->lengths[row];
            if (step(g, one, row * g->frames + t, g->y) || rindle_state_save(one, state, size) ||
                rindle_state_restore(other, state, size)) {
                wrong = -1;
            } else if (sequence || last) {
                wrong += differing(g, g->y, (sequence ? row * g->frames + t : row) * g->out, g->out);
            }
            one = other;
            other = before;
        }
    }
    free(state);
    return wrong;
}

/* Frees the model. */
static int check(const char *file, rindle_model *model) {
    golden g = {0};
    rindle_stream *one = NULL, *other = NULL;
    if (rindle_stream_new(model, &one) || rindle_stream_new(model, &other)) {
        printf("%s: %s\n", file, rindle_error());
        rindle_stream_free(one);
        rindle_free(model);
        return 1;
    }
    rindle_golden(model, &g.batch, &g.frames, &g.codes, &g.lengths, &g.outputs);
    g.model = model;
    g.ids = rindle_golden_ids(model);
    g.floats = rindle_golden_floats(model);
    g.in = rindle_input_size(model);
    g.out = rindle_output_size(model);
    g.made = rindle_output_frames(model, g.frames);
    g.inputs = malloc((g.batch * g.frames * g.in + 1) * sizeof(float));
    g.y = malloc((g.batch * g.made * g.out + 1) * sizeof(float));
    for (size_t i = 0; g.inputs && g.codes && i < g.batch * g.frames * g.in; ++i)
        g.inputs[i] = (float)(g.codes[i] * rindle_input_scale(model));
    const int steps = rindle_can_stream(model) == RINDLE_OK;
    long by_run = -1, by_step = -1;
    if (g.inputs && g.y && run(&g, one) == RINDLE_OK) {
        by_run = differing(&g, g.y, 0, g.batch * g.made * g.out);
        by_step = steps ? carried(&g, one, other) : 0;
    }
    if (by_run < 0 || by_step < 0) printf("%s: %s\n", file, rindle_error());
    else if (by_run || by_step) printf("%s: %ld values differ by run, %ld by carried states\n", file, by_run, by_step);
    free(g.inputs);
    free(g.y);
    rindle_stream_free(one);
    rindle_stream_free(other);
    rindle_free(model);
    return by_run != 0 || by_step != 0;
}

/* The model of a file, or each of its parts. */
static int check_file(const char *file) {
    rindle_model *model = NULL;
    if (rindle_load_file(file, NULL, &model) == RINDLE_OK) return check(file, model);
    FILE *const opened = fopen(file, "rb");
    char *const bytes = malloc(LARGEST);
    const size_t size = opened && bytes ? fread(bytes, 1, LARGEST, opened) : 0;
    const char *part;
    int wrong = size == 0 || !rindle_part_name(bytes, size, 0);
    if (wrong) printf("%s: cannot be loaded\n", file);
    for (size_t i = 0; size && (part = rindle_part_name(bytes, size, i)) != NULL; ++i)
        wrong |= rindle_load_part(bytes, size, part, NULL, &model) ? 1 : check(file, model);
    if (opened) fclose(opened);
    free(bytes);
    return wrong;
}

int main(int argc, char **argv) {
    int worst = argc < 2;
    for (int i = 1; i < argc; ++i) worst |= check_file(argv[i]);
    printf("the C API alone, on %d files: %s\n", argc - 1, worst ? "DIFFERS" : "as they say");
    return worst;
}
