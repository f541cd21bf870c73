/* Rindle: quantized recurrent networks with bit-exact integers. The C API, whole.
 *
 * A model is loaded from a .rindle file (docs/format.md) and never changes afterwards; rindle_with_thresholds makes another one of
 * it. A stream is one running
 * copy of its states. What the integers mean is in docs/numerics.md; every kernel gives the same ones.
 *
 *     rindle_model *model;
 *     if (rindle_load_file("model.rindle", NULL, &model) != RINDLE_OK) { puts(rindle_error()); exit(1); }
 *     rindle_stream *stream;
 *     rindle_stream_new(model, &stream);
 *     while (read_frame(x))
 *         rindle_step(stream, x, input_size, y, output_size);
 *     rindle_stream_free(stream);
 *     rindle_free(model);
 *
 * Arrays are contiguous, row-major, and given with their number of *elements*, which is checked. Inputs and outputs
 * may not overlap. Two types of value: float (in the model's own units) and int16_t codes (value = code * scale). Where
 * the first node is an embedding, a frame of the input is one id, an int32_t. Where the last one is a float node, there are no
 * codes of the output, and the *_codes calls are refused.
 *
 * Threads: a model may be used by any number of threads at once. A stream belongs to one thread at a time; a second
 * one that comes while it works is refused with RINDLE_BUSY. Different streams are independent.
 *
 * Memory: whoever calls new or load calls free. A stream keeps its model alive, so the two may be freed in either order.
 * Pointers that a model returns are valid until it is freed. Nothing allocates after rindle_stream_new, but for a matrix'
 * product, and for run: it takes memory for a block of some 60 frames, or where the model needs rows as a whole (it reads
 * sequences from their ends or ahead) for all the values of the longest one, and gives it back.
 */
#ifndef RINDLE_H
#define RINDLE_H

#include <stddef.h>
#include <stdint.h>

#ifndef RINDLE_API
#define RINDLE_API /* to build a shared library, define it as what exports a symbol */
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rindle_model rindle_model;
typedef struct rindle_stream rindle_stream;
typedef struct rindle_matrix rindle_matrix;

typedef enum rindle_status {
    RINDLE_OK = 0,
    RINDLE_INVALID_FILE = 1,     /* the file breaks a rule of docs/format.md, or cannot be read */
    RINDLE_NEWER_VERSION = 2,    /* the file is of a format version that this library does not know */
    RINDLE_INVALID_ARGUMENT = 3, /* a size, a length, a code out of range, an unknown kernel, a foreign state */
    RINDLE_NOT_FINITE = 4,       /* a float input is NaN or infinite; nothing has been changed */
    RINDLE_NOT_CAUSAL = 5,       /* the graph needs whole sequences: use rindle_run */
    RINDLE_BUSY = 6,             /* another thread is using this stream */
    RINDLE_NO_MEMORY = 7,
    RINDLE_INTERNAL = 8          /* a defect of this library */
} rindle_status;

/* What went wrong in this thread's last call that did not return RINDLE_OK. UTF-8, never NULL. */
RINDLE_API const char *rindle_error(void);

/* ---- Models ---------------------------------------------------------------------------------------------------- */

/* The name of a kernel that this CPU has, the fastest first ("avx512vnni", "avxvnni", "avx2", "portable"); NULL where there
 * is none of that index. All give the same integers. */
RINDLE_API const char *rindle_available_kernel(size_t index);

/* Read and check a whole file; the bytes are not needed afterwards. `kernel` forces a kernel by name ("portable");
 * NULL takes the one named by the environment variable RINDLE_KERNEL, or else the best that this CPU has.
 * `*model` is NULL after an error. */
RINDLE_API rindle_status rindle_load(const void *bytes, size_t size, const char *kernel, rindle_model **model);
RINDLE_API rindle_status rindle_load_file(const char *path, const char *kernel, rindle_model **model);
RINDLE_API void rindle_free(rindle_model *model); /* NULL is allowed */

/* A file may have several models, its parts: an encoder, a predictor and a joiner. rindle_load refuses such a file and names them;
 * these load one of them, by its name, as a model like any other. The other parts are not read. */
RINDLE_API rindle_status rindle_load_part(const void *bytes, size_t size, const char *part, const char *kernel, rindle_model **model);
RINDLE_API rindle_status rindle_load_part_file(const char *path, const char *part, const char *kernel, rindle_model **model);

/* The name of a file's part, in this thread's memory until its next call; NULL where there is none of that index, as in a file of
 * one model, and where the bytes are no file of parts. */
RINDLE_API const char *rindle_part_name(const void *bytes, size_t size, size_t index);

/* A threshold of a code path (numerics.md, (20)): it holds the path, or makes it dense. */
typedef struct rindle_threshold {
    const char *node, *path; /* as in the file: "rnn.l0", "h.code" */
    const int16_t *theta;    /* in code units, 0 <= theta < the path's largest code; NULL: the path is dense */
    size_t count;            /* of theta: one for each element of the path, or 1, which is for all of them */
} rindle_threshold;

/* A model with other thresholds. It shares all weights with `model`, which stays as it is; either may be freed first. Code paths that
 * are not named keep what they have. The first model that holds a path lays its matrices out by column as well, once for all
 * that share them, at the price of one product of the matrix per column; anything else takes microseconds.
 *
 * `id`: 64 hex digits that name what the new model computes, which saved states carry: that of the file with these thresholds. NULL: it
 * has none, rindle_id is "", and rindle_state_save and rindle_state_restore refuse it. Its golden vector is empty, for outputs
 * depend on thresholds: counts are 0 and pointers NULL.
 *
 * RINDLE_INVALID_ARGUMENT, by name, for a path that the model does not have or that is named twice, for a threshold out of range, for a
 * count that is neither, and for an id that is none. `*made` is NULL after an error. */
RINDLE_API rindle_status rindle_with_thresholds(const rindle_model *model, const rindle_threshold *thresholds, size_t count,
                                                const char *id, rindle_model **made);

RINDLE_API const char *rindle_kernel(const rindle_model *model);          /* the kernel in use */
RINDLE_API const char *rindle_id(const rindle_model *model);              /* 64 hex digits, or "" */
RINDLE_API size_t rindle_vocabulary(const rindle_model *model);           /* V: the input is ids 0..V-1; 0: it is features */
RINDLE_API size_t rindle_input_size(const rindle_model *model);           /* I: features of one frame; 1 for ids */
RINDLE_API size_t rindle_output_size(const rindle_model *model);          /* O */
RINDLE_API double rindle_input_scale(const rindle_model *model);          /* value of one code; 1 for ids */
RINDLE_API double rindle_output_scale(const rindle_model *model);         /* 0 where the output is float */
RINDLE_API int rindle_output_is_float(const rindle_model *model);         /* 1: there are no output codes */
RINDLE_API int rindle_output_is_sequence(const rindle_model *model);      /* 1: [B, T', O], 0: one vector per row, [B, O] */

/* T': frames of the output for T of the input: what the graph's windows make of them, and T itself where there are none; 1 for
 * one vector per row. 0 where T is too short for a window, or none of 1..2^31-1. */
RINDLE_API size_t rindle_output_frames(const rindle_model *model, size_t frames);

/* RINDLE_OK if frames can be given one by one; else RINDLE_NOT_CAUSAL, and rindle_error() names the node. */
RINDLE_API rindle_status rindle_can_stream(const rindle_model *model);

/* The golden vector of the file, as codes: inputs [B, T, I], lengths [B], outputs [B, T', O] or [B, O]. Where the input is
 * ids, `inputs` is NULL and rindle_golden_ids gives them, [B, T]; else that is NULL. Where the output is float, `outputs` is NULL
 * and rindle_golden_floats gives it, else that is NULL; run it with code * input_scale as floats, which become the same codes. */
RINDLE_API void rindle_golden(const rindle_model *model, size_t *batch, size_t *frames, const int16_t **inputs,
                              const int32_t **lengths, const int16_t **outputs);
RINDLE_API const int32_t *rindle_golden_ids(const rindle_model *model);
RINDLE_API const float *rindle_golden_floats(const rindle_model *model);

/* ---- What is counted (numerics.md, section 8) -------------------------------------------------------------------- */

/* Held code paths, in the order in which a frame computes them. */
RINDLE_API size_t rindle_held_count(const rindle_model *model);
RINDLE_API rindle_status rindle_held(const rindle_model *model, size_t index, const char **node, const char **path,
                                     size_t *size);

/* Places that saturate. The first is the model's input: node and operation are "input", operation index -1. Then every counted
 * operation in the order of its node's program; `path` is what it writes (an affine's gates, joined by spaces). */
RINDLE_API size_t rindle_saturation_count(const rindle_model *model);
RINDLE_API rindle_status rindle_saturation(const rindle_model *model, size_t index, const char **node,
                                           int *operation_index, const char **operation, const char **path);

/* ---- Streams ----------------------------------------------------------------------------------------------------- */

/* A stream at its initial states, with zero counters: all the memory that its steps will ever use. */
RINDLE_API rindle_status rindle_stream_new(const rindle_model *model, rindle_stream **stream);
RINDLE_API void rindle_stream_free(rindle_stream *stream); /* NULL is allowed; not while it works */

/* States to the initial ones, zeros unless the file has others, as before the first frame. Counters stay. */
RINDLE_API rindle_status rindle_reset(rindle_stream *stream);

/* One frame: x [I] to y [O]. Where the output is one vector per row, y is what it would be if the row ended here. */
RINDLE_API rindle_status rindle_step(rindle_stream *stream, const float *x, size_t x_count, float *y, size_t y_count);
RINDLE_API rindle_status rindle_step_codes(rindle_stream *stream, const int16_t *x, size_t x_count, int16_t *y,
                                           size_t y_count);
RINDLE_API rindle_status rindle_step_id(rindle_stream *stream, int32_t id, float *y, size_t y_count);
RINDLE_API rindle_status rindle_step_id_codes(rindle_stream *stream, int32_t id, int16_t *y, size_t y_count);

/* Whole sequences: x [B, T, I] to y [B, T', O] or [B, O], T' being rindle_output_frames of T. `lengths` [B] (NULL: all are T)
 * gives each row's real frames, 1..T; what x holds behind them is not read, and y is zero behind what becomes of them. A row
 * too short for a window is refused before anything is written. Every row starts from the initial states, whatever the stream held,
 * and the stream is reset afterwards. */
RINDLE_API rindle_status rindle_run(rindle_stream *stream, const float *x, size_t x_count, size_t batch, size_t frames,
                                    const int32_t *lengths, float *y, size_t y_count);
RINDLE_API rindle_status rindle_run_codes(rindle_stream *stream, const int16_t *x, size_t x_count, size_t batch,
                                          size_t frames, const int32_t *lengths, int16_t *y, size_t y_count);
/* ids [B, T] */
RINDLE_API rindle_status rindle_run_ids(rindle_stream *stream, const int32_t *ids, size_t ids_count, size_t batch,
                                        size_t frames, const int32_t *lengths, float *y, size_t y_count);
RINDLE_API rindle_status rindle_run_ids_codes(rindle_stream *stream, const int32_t *ids, size_t ids_count, size_t batch,
                                              size_t frames, const int32_t *lengths, int16_t *y, size_t y_count);

/* The states as bytes ("Saved state" of docs/format.md): the same on every machine and with every kernel. A state of
 * another model, or one with a code out of range, is refused, and the stream stays as it was. */
RINDLE_API size_t rindle_state_size(const rindle_model *model); /* in bytes */
RINDLE_API rindle_status rindle_state_save(rindle_stream *stream, void *bytes, size_t size);
RINDLE_API rindle_status rindle_state_restore(rindle_stream *stream, const void *bytes, size_t size);

/* Since the stream was made or its counters were reset: for each held path the frames that it saw and the number of its
 * elements that changed, [held_count] each; for each place that saturates, the number of elements outside [saturation_count].
 * Any of the three may be NULL. */
RINDLE_API rindle_status rindle_counters(rindle_stream *stream, uint64_t *frames, uint64_t *changed,
                                         uint64_t *saturated);
RINDLE_API rindle_status rindle_reset_counters(rindle_stream *stream);

/* ---- A matrix alone ---------------------------------------------------------------------------------------------- */

/* The kernels' product without a model: weights [rows, columns], -127..127, packed once for one kernel (chosen as for
 * rindle_load). Codes of x have code_bits bits, 2..16, and lie in -(2^(code_bits-1) - 1)..2^(code_bits-1) - 1. Refused where a
 * row's sum could leave int32. A matrix never changes: any number of threads may multiply with it at once. */
RINDLE_API rindle_status rindle_matrix_new(const int8_t *weights, size_t weights_count, size_t rows, size_t columns, int code_bits,
                                           const char *kernel, rindle_matrix **matrix);
RINDLE_API void rindle_matrix_free(rindle_matrix *matrix); /* NULL is allowed; not while it multiplies */

/* n vectors at once, x [n, columns] to y [n, rows]: y = W x, exactly. A code out of range is refused, and nothing is written. */
RINDLE_API rindle_status rindle_matrix_multiply(const rindle_matrix *matrix, const int16_t *x, size_t x_count, size_t n, int32_t *y,
                                                size_t y_count);
RINDLE_API rindle_status rindle_matrix_multiply_bytes(const rindle_matrix *matrix, const int8_t *x, size_t x_count, size_t n,
                                                      int32_t *y, size_t y_count);

#ifdef __cplusplus
}
#endif
#endif
