// The arithmetic, the JSON reader and the API. Returns nonzero if anything failed.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/fixed.h"
#include "file/json.h"
#include "kernels/kernels.h"
#include "loaded.h"
#include "api/rindle.h"
#include "small_model.h"

void test_convolution();
void test_document();
void test_floats();
void test_graph();
void test_dynamic();
void test_kernels();
void test_thresholds();
void test_windows();

namespace {

using namespace rindle;

void fixed() {
    CHECK(sat(5, -3, 3) == 3 && sat(-5, -3, 3) == -3 && sat(2, -3, 3) == 2);
    CHECK(rounding<int>(0) == 0 && rounding<int>(1) == 1 && rounding<std::int64_t>(40) == std::int64_t{1} << 39);
    for (int v = -40; v <= 40; ++v)
        for (int s = 0; s <= 4; ++s) CHECK(round(v, s) == static_cast<int>(std::floor(v / std::ldexp(1.0, s) + (s ? 0.5 : 0))));
    CHECK(round(-5, 1) == -2 && round(5, 1) == 3);  // half up
    CHECK(finish_row(-7, 2, 2) == -2);              // floor(-5 / 4)

    CHECK(round_input(2.5F, 1.0F, -128, 127) == 3 && round_input(-2.5F, 1.0F, -128, 127) == -2);
    CHECK(round_input(0.49999997F, 1.0F, -128, 127) == 0);  // + 0.5 in float would give 1
    CHECK(round_input(126.9F, 1.0F, -127, 127) == 127 && round_input(127.5F, 1.0F, -127, 127) == 128);
    CHECK(round_input(-127.5F, 1.0F, -127, 127) == -127 && round_input(-127.6F, 1.0F, -127, 127) == -128);
    CHECK(round_input(3e38F, 3e38F, -32768, 32767) == 32768 && round_input(-3e38F, 3e38F, -32768, 32767) == -32769);
    CHECK(decode(-3, 0.25) == -0.75F);

    for (std::int64_t sum = -20; sum <= 20; ++sum)
        for (std::int64_t frames = 1; frames <= 7; ++frames)
            CHECK(mean(sum, frames) == static_cast<std::int64_t>(
                                           std::floor(static_cast<double>(2 * sum + frames) / static_cast<double>(2 * frames))));
}

std::string json_error(const std::string& text) {
    try {
        json::parse(text);
    } catch (const json::Error& error) {
        return error.what();
    }
    return "";
}

void reads_json() {
    const json::Value value = json::parse(R"( {"a": [1, -0, 9223372036854775807, 1.5, 1e2, true, null], "é\u00e9\ud83d\ude00\n": "x"} )");
    const auto& object = *value.get<json::Object>();
    const auto& items = *json::find(object, "a")->get<json::Array>();
    CHECK(items.size() == 7 && *items[0].get<std::int64_t>() == 1 && *items[1].get<std::int64_t>() == 0);
    CHECK(*items[2].get<std::int64_t>() == INT64_MAX && *items[3].get<double>() == 1.5 && *items[4].get<double>() == 100);
    CHECK(*items[5].get<bool>() && items[6].get<std::monostate>());
    CHECK(object[1].key == "\xc3\xa9\xc3\xa9\xf0\x9f\x98\x80\n" && *object[1].value.get<std::string>() == "x");
    CHECK(*json::parse("9223372036854775808").get<double>() == 9223372036854775808.0);
    CHECK(!json_error("1e999").empty() && !json_error("1e-999").empty() && json_error("0e-999").empty());
    CHECK(json_error(std::string(32, '[') + std::string(32, ']')).empty());

    const char* bad[] = {"", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "1 2", "01", "-", "1.",
                         ".5", "1e", "+1", "NaN", "Infinity", "nul", "truex", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"",
                         "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\n\"", "\"\x80\"", "\"\xc3\"", "\"\xc0\x80\"",
                         "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe0\x80\x80\"", "\"\xf0\x80\x80\x80\"", "'a'", "/**/1"};
    for (const char* text : bad) {
        if (!json_error(text).empty()) continue;
        std::printf("accepted: %s\n", text);
        ++failures;
    }
    CHECK(json_error("{\"a\":1,\"a\":2}").find("duplicate key") != std::string::npos);
    CHECK(json_error(std::string(33, '[') + std::string(33, ']')).find("32 levels") != std::string::npos);
    CHECK(json_error(std::string(100000, '[')).find("32 levels") != std::string::npos);
    CHECK(json_error("[1,\n x]").find("at byte 5") != std::string::npos);
    CHECK(!json_error(std::string("\"a\0\"", 4)).empty());
}

// By hand. Frame 1, x = (3, -2):
//   q = floor((5x + 2) / 4) = (4, -2), both further than theta = 1 from 0
//   y = floor((3 W q + b + 1) / 2) = ((0 + 4 + 1) / 2, (3*14 - 6 + 1) / 2) = (2, 18)
//   g: u = (2, 18), k = (0, 1), t = (2, 2): (0 + (10+4>>3), 10 + (16+4>>3)) = (1, 12)
//   z: (y v) is of frac 13, g g of frac 20: v = (200 << 7) + 1 = 25601, (-54 << 7) + 144 = -6768; shift 12: (6, -2)
//   sum of s and z at frac 8, shift 3: (1, 0); clip does nothing; s = (1, 0)
// Frame 2, x = (4, -2): q = (5, -2): 5 - 4 is not above theta, so v-hat and y, g, z stay
//   sum = ((1 + 6 + 4) >> 3, (0 - 2 + 4) >> 3) = (1, 0)
void runs() {
    Loaded loaded{SmallModel()};
    rindle_stream* stream = loaded.stream.get();
    const std::int16_t x[] = {3, -2, 4, -2, 999, 999};
    std::int16_t y[2] = {9, 9};
    CHECK(rindle_step_codes(stream, x, 2, y, 2) == RINDLE_OK && y[0] == 1 && y[1] == 0);
    CHECK(rindle_step_codes(stream, x + 2, 2, y, 2) == RINDLE_OK && y[0] == 1 && y[1] == 0);
    std::uint64_t frames = 0, changed = 0;
    std::vector<std::uint64_t> saturated(rindle_saturation_count(loaded.model.get()));
    CHECK(rindle_held_count(loaded.model.get()) == 1 && saturated.size() == 6);
    CHECK(rindle_counters(stream, &frames, &changed, saturated.data()) == RINDLE_OK && frames == 2 && changed == 2);
    for (std::uint64_t count : saturated) CHECK(count == 0);

    std::vector<unsigned char> state(rindle_state_size(loaded.model.get()));
    CHECK(state.size() == 8 + 32 + 4 + 2 * 4);
    CHECK(rindle_state_save(stream, state.data(), state.size()) == RINDLE_OK);
    for (std::size_t i = 0; i < 32; ++i) CHECK(state[8 + i] == 0x11 * (i % 16));  // the id
    const std::vector<unsigned char> values(state.begin() + 40, state.end());
    CHECK((values == std::vector<unsigned char>{4, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0xfe, 0xff}));

    // floats: 4 fractional bits, and far outside
    const float f[] = {3.0F / 16, -2.0F / 16};
    float out[2] = {9, 9};
    CHECK(rindle_reset(stream) == RINDLE_OK);
    CHECK(rindle_step(stream, f, 2, out, 2) == RINDLE_OK && out[0] == 1.0F / 256 && out[1] == 0);
    const float huge[] = {1e30F, -1e30F};
    CHECK(rindle_reset_counters(stream) == RINDLE_OK);
    CHECK(rindle_step(stream, huge, 2, out, 2) == RINDLE_OK);
    CHECK(rindle_counters(stream, nullptr, nullptr, saturated.data()) == RINDLE_OK);
    CHECK(saturated[0] == 2 && saturated[1] == 2);  // the input rule, and x's code

    // a row is that row alone, and stops at its length
    const std::int32_t lengths[] = {2, 1};
    const std::int16_t rows[] = {3, -2, 4, -2, 999, 999, 3, -2, 32767, 32767, 7, 7};
    std::int16_t results[4] = {};
    CHECK(rindle_run_codes(stream, rows, 12, 2, 3, lengths, results, 4) == RINDLE_OK);
    CHECK(results[0] == 1 && results[1] == 0 && results[2] == 1 && results[3] == 0);
    std::vector<unsigned char> after(state.size());
    CHECK(rindle_state_save(stream, after.data(), after.size()) == RINDLE_OK);
    for (std::size_t i = 44; i < after.size(); ++i) CHECK(after[i] == 0);

    // a state goes back only whole, in range, and to its own model
    CHECK(rindle_state_restore(stream, state.data(), state.size()) == RINDLE_OK);
    CHECK(rindle_state_save(stream, after.data(), after.size()) == RINDLE_OK && after == state);
    CHECK(rindle_state_restore(stream, state.data(), state.size() - 1) == RINDLE_INVALID_ARGUMENT);
    CHECK(rindle_state_restore(stream, state.data(), 3) == RINDLE_INVALID_ARGUMENT && said("not a saved state"));
    std::vector<unsigned char> foreign = state, wild = state, counted = state;
    foreign[10] ^= 1;
    CHECK(rindle_state_restore(stream, foreign.data(), foreign.size()) == RINDLE_INVALID_ARGUMENT && said("another model"));
    wild[45] = 0x7f;
    CHECK(rindle_state_restore(stream, wild.data(), wild.size()) == RINDLE_INVALID_ARGUMENT && said("outside the range"));
    counted[40] ^= 1;
    CHECK(rindle_state_restore(stream, counted.data(), counted.size()) == RINDLE_INVALID_ARGUMENT);
    CHECK(rindle_state_save(stream, after.data(), after.size()) == RINDLE_OK && after == state);
}

// A restored stream goes on as the saved one does, although accumulators are not saved.
void restores() {
    Loaded first{SmallModel()}, second{SmallModel()};
    std::vector<unsigned char> state(rindle_state_size(first.model.get())), other(state.size());
    const std::int16_t x[] = {300, -200};
    std::int16_t y[2], z[2];
    for (int t = 0; t < 6; ++t) {
        CHECK(rindle_state_save(first.stream.get(), state.data(), state.size()) == RINDLE_OK);
        CHECK(rindle_state_restore(second.stream.get(), state.data(), state.size()) == RINDLE_OK);
        for (int more = 0; more < 2; ++more) CHECK(rindle_step_codes(second.stream.get(), x, 2, z, 2) == RINDLE_OK);
        CHECK(rindle_state_save(second.stream.get(), other.data(), other.size()) == RINDLE_OK);
        for (int more = 0; more < 2; ++more) CHECK(rindle_step_codes(first.stream.get(), x, 2, y, 2) == RINDLE_OK);
        CHECK(rindle_state_save(first.stream.get(), state.data(), state.size()) == RINDLE_OK);
        CHECK(state == other && y[0] == z[0] && y[1] == z[1]);
    }
}

// A program on a vector begins with v-hat = 0 each time: a step gives what a run of the frames so far gives.
void forgets() {
    SmallModel head;
    head.document = replaced(head.document, "\"output\": \"final\"", "\"output\": \"head\"");
    head.document = replaced(head.document, "\"input\": \"cell\"}", R"("input": "cell"},
  {"name": "head", "kind": "program", "input": "final", "program": {"cell": "test", "input": "x", "states": [], "output": "y",
   "paths": {"x": {"size": 2, "bits": 8, "frac": 8}, "y": {"size": 2, "bits": 16, "frac": 6}}, "vectors": {},
   "codes": {"q": {"size": 2, "bits": 8, "frac": 8, "theta": 20}},
   "ops": [{"op": "requantize", "out": "q", "in": "x", "multiplier": 20, "shift": 0},
           {"op": "affine", "out": ["y"], "bias": "cell.bias", "shift": 1, "terms": [{"in": "q", "gates": ["y"],
            "weight": "cell.weight", "bits": 3, "frac": 1, "multiplier": "cell.m"}]}]}})");
    Loaded loaded(head);
    const std::int16_t x[] = {300, -200, -3, 100, -300, 20, 0, 0, 20, 20};
    std::int16_t step[2], run[2];
    for (std::size_t t = 0; t < 5; ++t) {
        Loaded fresh(head);
        CHECK(rindle_step_codes(loaded.stream.get(), x + 2 * t, 2, step, 2) == RINDLE_OK);
        CHECK(rindle_run_codes(fresh.stream.get(), x, 2 * (t + 1), 1, t + 1, nullptr, run, 2) == RINDLE_OK);
        CHECK(step[0] == run[0] && step[1] == run[1]);
    }
    std::vector<unsigned char> state(rindle_state_size(loaded.model.get()));
    CHECK(state.size() == 44 + 2 * 6);
    CHECK(rindle_state_save(loaded.stream.get(), state.data(), state.size()) == RINDLE_OK);
    CHECK(state[state.size() - 4] == 0);
    state[state.size() - 4] = 1;  // such a v-hat is always zero between frames
    CHECK(rindle_state_restore(loaded.stream.get(), state.data(), state.size()) == RINDLE_INVALID_ARGUMENT);
}

// Four products of 32767 need more than 32 bits.
void widens() {
    SmallModel wide;
    wide.document = R"({"version": 1, "id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
 "input": {"size": 4, "format": {"bits": 16, "frac": 0}}, "output": "cell", "tables": {}, "provenance": {},
 "nodes": [{"name": "cell", "kind": "program", "input": "input", "program": {"cell": "test", "input": "x", "states": [],
   "output": "y", "paths": {"x": {"size": 4, "bits": 16, "frac": 0}, "y": {"size": 1, "bits": 16, "frac": 0}},
   "codes": {"q": {"size": 4, "bits": 16, "frac": 0}}, "vectors": {}, "ops": [
   {"op": "requantize", "out": "q", "in": "x", "multiplier": 1, "shift": 0},
   {"op": "affine", "out": ["y"], "bias": "b", "shift": 17, "terms": [
    {"in": "q", "gates": ["y"], "weight": "w", "bits": 16, "frac": 0, "multiplier": "m"}]}]}}],
 "golden": {"inputs": "golden.inputs", "outputs": "golden.outputs", "lengths": "golden.lengths"}})";
    wide.tensors.clear();
    wide.set<std::int64_t>("b", "I64", "[1]", {0});
    wide.set<std::int32_t>("m", "I32", "[1]", {1});
    wide.set<std::uint8_t>("w", "U8", "[1,8]", {0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f});
    wide.set<std::int16_t>("golden.inputs", "I16", "[1,1,4]", {0, 0, 0, 0});
    wide.set<std::int16_t>("golden.outputs", "I16", "[1,1,1]", {0});
    wide.set<std::int32_t>("golden.lengths", "I32", "[1]", {1});
    Loaded loaded(wide);
    const std::int16_t x[] = {32767, 32767, 32767, -32768};
    std::int16_t y = 0;
    CHECK(rindle_step_codes(loaded.stream.get(), x, 4, &y, 1) == RINDLE_OK && y == 16383);  // the last code is -32767
    const std::int16_t most[] = {32767, 32767, 32767, 32767};
    CHECK(rindle_step_codes(loaded.stream.get(), most, 4, &y, 1) == RINDLE_OK && y == 32766);
}

// A delay line: states take their values all at once, and an output that is a state is the one before the frame.
void delays() {
    SmallModel line;
    const std::size_t begin = line.document.find("\"states\""), end = line.document.find("{\"name\": \"final\"");
    line.document = line.document.substr(0, begin) + R"("states": [["b", "a"], ["a", "x"], ["c", "b"]], "output": "c",
   "paths": {"x": {"size": 2, "bits": 16, "frac": 4}, "a": {"size": 2, "bits": 16, "frac": 4},
             "b": {"size": 2, "bits": 16, "frac": 4}, "c": {"size": 2, "bits": 16, "frac": 4},
             "y": {"size": 2, "bits": 16, "frac": 4}, "d": {"size": 2, "bits": 16, "frac": 4}}, "codes": {}, "vectors": {},
   "ops": [{"op": "clip", "out": "y", "in": "x", "lo": 0, "hi": 0}]}},
  )" + line.document.substr(end);
    line.document = replaced(line.document, "[[\"b\", \"a\"], ", "[[\"d\", \"y\"], [\"b\", \"a\"], ");
    line.document = replaced(line.document, "\"in\": \"x\", \"lo\"", "\"in\": \"d\", \"lo\"");
    const std::size_t tables = line.document.find("\"tables\""), golden = line.document.find("\"golden\"");
    line.document = line.document.substr(0, tables) + "\"tables\": {}, " + line.document.substr(golden);
    for (const char* name : {"cell.v", "cell.bias", "cell.weight", "cell.scales", "cell.m", "ramp.base", "ramp.slope"})
        line.tensors.erase(name);
    Loaded loaded(line);
    for (std::int16_t t = 1; t < 9; ++t) {
        const std::int16_t x[] = {t, static_cast<std::int16_t>(-t)};
        std::int16_t y[2];
        CHECK(rindle_step_codes(loaded.stream.get(), x, 2, y, 2) == RINDLE_OK);
        CHECK(y[0] == std::max(t - 3, 0) && y[1] == -y[0]);
    }
}

void refuses() {
    Loaded loaded{SmallModel()};
    rindle_stream* stream = loaded.stream.get();
    std::int16_t codes[2] = {1, 1}, out[2];
    float x[6] = {1, 1, 1, 1, 1, 1}, y[2];
    CHECK(rindle_step_codes(stream, codes, 3, out, 2) == RINDLE_INVALID_ARGUMENT && said("x has 3"));
    CHECK(rindle_step_codes(stream, codes, 2, out, 1) == RINDLE_INVALID_ARGUMENT && said("y has 1"));
    CHECK(rindle_step_codes(stream, nullptr, 2, out, 2) == RINDLE_INVALID_ARGUMENT && said("x is NULL"));
    CHECK(rindle_step_codes(nullptr, codes, 2, out, 2) == RINDLE_INVALID_ARGUMENT && said("stream is NULL"));
    std::vector<char> before(rindle_state_size(loaded.model.get())), after(before.size());
    CHECK(rindle_step(stream, x, 2, y, 2) == RINDLE_OK);
    CHECK(rindle_state_save(stream, before.data(), before.size()) == RINDLE_OK);
    x[1] = std::numeric_limits<float>::quiet_NaN();
    CHECK(rindle_step(stream, x, 2, y, 2) == RINDLE_NOT_FINITE && said("feature 1"));
    x[1] = -std::numeric_limits<float>::infinity();
    CHECK(rindle_step(stream, x, 2, y, 2) == RINDLE_NOT_FINITE);
    const std::int32_t one[] = {1}, four[] = {4}, none[] = {0};
    x[1] = 1, x[3] = std::numeric_limits<float>::infinity();
    CHECK(rindle_run(stream, x, 6, 1, 3, nullptr, y, 2) == RINDLE_NOT_FINITE && said("row 0, frame 1, feature 1"));
    CHECK(rindle_run(stream, x, 6, 1, 3, four, y, 2) == RINDLE_INVALID_ARGUMENT && said("lengths[0] is 4"));
    CHECK(rindle_run(stream, x, 6, 1, 3, none, y, 2) == RINDLE_INVALID_ARGUMENT && said("lengths[0] is 0"));
    CHECK(rindle_run(stream, x, 5, 1, 3, nullptr, y, 2) == RINDLE_INVALID_ARGUMENT && said("x has 5"));
    CHECK(rindle_run(stream, x, 6, 1, 3, nullptr, y, 6) == RINDLE_INVALID_ARGUMENT && said("y has 6"));
    CHECK(rindle_run(stream, x, 4, SIZE_MAX / 2 + 3, 1, nullptr, y, 2) == RINDLE_INVALID_ARGUMENT);
    CHECK(rindle_run(stream, x, 0, 1, 0, nullptr, y, 2) == RINDLE_INVALID_ARGUMENT && said("at least one frame"));
    CHECK(rindle_state_save(stream, after.data(), after.size()) == RINDLE_OK && after == before);
    CHECK(rindle_run(stream, x, 6, 1, 3, one, y, 2) == RINDLE_OK);  // what lies behind the length is not read
    CHECK(rindle_run(stream, nullptr, 0, 0, 3, nullptr, nullptr, 0) == RINDLE_OK);

    SmallModel narrow;  // an 8-bit input has no -128
    narrow.document = replaced(narrow.document, "\"format\": {\"bits\": 16", "\"format\": {\"bits\": 8");
    narrow.document = replaced(narrow.document, "{\"x\": {\"size\": 2, \"bits\": 16", "{\"x\": {\"size\": 2, \"bits\": 8");
    Loaded eight(narrow);
    codes[1] = -128;
    CHECK(rindle_step_codes(eight.stream.get(), codes, 2, out, 2) == RINDLE_INVALID_ARGUMENT && said("feature 1 is the code -128"));

    SmallModel averages;
    averages.document = replaced(averages.document, "\"kind\": \"last\"", "\"kind\": \"mean\"");
    Loaded mean(averages);
    CHECK(rindle_can_stream(loaded.model.get()) == RINDLE_OK);
    CHECK(rindle_can_stream(mean.model.get()) == RINDLE_NOT_CAUSAL && said("\"final\""));
    CHECK(rindle_step_codes(mean.stream.get(), out, 2, out, 2) == RINDLE_NOT_CAUSAL && said("\"final\""));

    rindle_model* model = loaded.model.get();
    CHECK(rindle_load("", 0, "avx9000", &model) == RINDLE_INVALID_ARGUMENT && said("known are: ") && !model);
    CHECK(rindle_load_file("/nonexistent/x.rindle", nullptr, &model) == RINDLE_INVALID_FILE && said("cannot be opened"));
    CHECK(std::string(rindle_kernel(loaded.model.get())) == rindle::available_kernels().kernels[0]->name);
    CHECK(std::string(rindle_id(loaded.model.get())).size() == 64);
}

// While one thread is inside a long run, another is refused, and the run is not disturbed.
void busy() {
    Loaded loaded{SmallModel()};
    const std::size_t frames = 2'000'000;
    const std::vector<std::int16_t> x(2 * frames, 3);
    std::int16_t y[2], z[2] = {3, 3};
    std::atomic<bool> refused = false, done = false;
    std::thread other([&] {
        while (!done && !refused) refused = rindle_step_codes(loaded.stream.get(), z, 2, z, 2) == RINDLE_BUSY;
    });
    rindle_status status;
    do status = rindle_run_codes(loaded.stream.get(), x.data(), x.size(), 1, frames, nullptr, y, 2);
    while (status == RINDLE_BUSY);
    done = true;
    other.join();
    CHECK(status == RINDLE_OK);
    CHECK(refused);
}

}  // namespace

// rindle-tests FOLDER: writes the small models there, as seeds for rindle-mutate.
static int write_samples(const std::string& folder) {
    std::vector<SmallModel> models = {small_convolution()};
    for (const auto& more : {small_windows(), small_floats()}) models.insert(models.end(), more.begin(), more.end());
    for (std::size_t i = 0; i < models.size(); ++i) {
        std::ofstream file(folder + "/small-" + std::to_string(i) + ".rindle", std::ios::binary);
        if (!(file << models[i].file() << std::flush)) {
            std::fprintf(stderr, "%s: cannot be written\n", folder.c_str());
            return 2;
        }
    }
    return 0;
}

// The test of RINDLE_NO_MEMORY asks for more than there can be: the address sanitizer, if there, is to say no as malloc does.
#if defined(__GNUC__)
#define VISIBLE __attribute__((visibility("default")))  // to the sanitizer's library
#else
#define VISIBLE
#endif
extern "C" VISIBLE const char* __asan_default_options();
extern "C" VISIBLE const char* __asan_default_options() { return "allocator_may_return_null=1"; }

int main(int argc, char** argv) {
    if (argc > 1) return write_samples(argv[1]);
    fixed();
    reads_json();
    runs();
    restores();
    forgets();
    delays();
    widens();
    refuses();
    busy();
    test_document();
    test_graph();
    test_dynamic();
    test_kernels();
    test_convolution();
    test_windows();
    test_floats();
    test_thresholds();
    std::printf(failures ? "%d failures\n" : "all passed\n", failures);
    return failures != 0;
}
