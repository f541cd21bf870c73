// Graphs of version 2: ids, both directions, values joined. By hand.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "api/api.h"
#include "loaded.h"

namespace {

// A program that gives what it read the time before.
std::string delay(const std::string& name, bool reverse) {
    return "{\"name\": \"" + name + "\", \"kind\": \"program\", \"input\": \"words\"" + (reverse ? ", \"reverse\": true" : "") +
           R"(, "program": {"cell": "delay", "input": "x", "states": [["d", "a"]], "output": "d",
   "paths": {"x": {"size": 2, "bits": 3, "frac": 0}, "a": {"size": 2, "bits": 16, "frac": 0},
             "d": {"size": 2, "bits": 16, "frac": 0}}, "codes": {}, "vectors": {},
   "ops": [{"op": "requantize", "out": "a", "in": "x", "multiplier": 1, "shift": 0}]}})";
}

// Rows (1, -2), (3, 0), (-1, 2) of 3 bits. "before" gives the frame before, "after", which is reversed, the one after;
// "both" joins them. Each of `more` is a node, behind a comma.
SmallModel graph(const std::string& output, const std::string& more = "") {
    SmallModel model;
    model.document = R"({"version": 2, "id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
 "input": {"vocabulary": 3}, "output": ")" + output + R"(", "tables": {}, "provenance": {}, "nodes": [
  {"name": "words", "kind": "embedding", "input": "input", "size": 2, "format": {"bits": 3, "frac": 0}, "weight": "rows"},
  )" + delay("before", false) + ", " + delay("after", true) +
                     R"(, {"name": "both", "kind": "concat", "input": ["before", "after"]})" + more + R"(],
 "golden": {"inputs": "golden.inputs", "outputs": "golden.outputs", "lengths": "golden.lengths"}})";
    model.tensors.clear();
    model.set<std::uint8_t>("rows", "U8", "[3,1]", {1 | 6 << 3, 3, 7 | 2 << 3});
    model.set<std::int32_t>("golden.inputs", "I32", "[1,1]", {2});
    model.set<std::int32_t>("golden.lengths", "I32", "[1]", {1});
    model.set<std::int16_t>("golden.outputs", "I16", more.empty() ? "[1,1,4]" : "[1,2]",
                            std::vector<std::int16_t>(more.empty() ? 4 : 2));
    return model;
}

void both_directions() {
    Loaded loaded(graph("both"));
    rindle_stream* stream = loaded.stream.get();
    CHECK(rindle_vocabulary(loaded.model.get()) == 3 && rindle_input_size(loaded.model.get()) == 1);
    const std::int32_t ids[] = {0, 1, 2, 0, 1, -99}, lengths[] = {3, 2};
    std::int16_t y[24];
    CHECK(rindle_run_ids_codes(stream, ids, 6, 2, 3, lengths, y, 24) == RINDLE_OK);
    const std::int16_t expected[] = {0, 0, 3, 0, 1, -2, -1, 2, 3, 0, 0, 0,  // (before, after) of three frames
                                     0, 0, 3, 0, 1, -2, 0,  0, 0, 0, 0, 0};  // of two: the third is past the row's end
    for (int i = 0; i < 24; ++i) CHECK(y[i] == expected[i]);
    float f[24];
    CHECK(rindle_run_ids(stream, ids, 6, 2, 3, lengths, f, 24) == RINDLE_OK);
    for (int i = 0; i < 24; ++i) CHECK(f[i] == expected[i]);

    CHECK(rindle_can_stream(loaded.model.get()) == RINDLE_NOT_CAUSAL && said("\"after\" reads the sequence from its end"));
    CHECK(rindle_step_id_codes(stream, 0, y, 4) == RINDLE_NOT_CAUSAL && said("\"after\""));
    CHECK(rindle_run_ids_codes(stream, ids, 6, 2, 3, nullptr, y, 24) == RINDLE_INVALID_ARGUMENT &&
          said("row 1, frame 2, is the id -99, must be 0..2"));
    const std::int32_t large[] = {0, 3};
    CHECK(rindle_run_ids_codes(stream, large, 2, 1, 2, nullptr, y, 8) == RINDLE_INVALID_ARGUMENT && said("the id 3"));
    CHECK(rindle_run_codes(stream, y, 3, 1, 3, nullptr, y + 6, 12) == RINDLE_INVALID_ARGUMENT && said("reads ids"));
    CHECK(rindle_run_ids_codes(stream, nullptr, 0, 0, 3, nullptr, nullptr, 0) == RINDLE_OK);

    Loaded features{SmallModel()};
    std::int16_t two[2];
    CHECK(rindle_vocabulary(features.model.get()) == 0 && !rindle_golden_ids(features.model.get()));
    CHECK(rindle_step_id_codes(features.stream.get(), 0, two, 2) == RINDLE_INVALID_ARGUMENT && said("not ids"));
}

void ends() {
    const std::int32_t ids[] = {0, 1, 2};
    const auto result = [&](const std::string& kind, const std::string& input) {
        Loaded loaded(graph("end", ", {\"name\": \"end\", \"kind\": \"" + kind + "\", \"input\": \"" + input + "\"}"));
        std::vector<std::int16_t> y(2);
        CHECK(rindle_run_ids_codes(loaded.stream.get(), ids, 3, 1, 3, nullptr, y.data(), 2) == RINDLE_OK);
        return y;
    };
    CHECK((result("first", "after") == std::vector<std::int16_t>{3, 0}));  // its final state
    CHECK((result("last", "after") == std::vector<std::int16_t>{0, 0}));
    CHECK((result("last", "before") == std::vector<std::int16_t>{3, 0}));
    CHECK((result("last", "words") == std::vector<std::int16_t>{-1, 2}));
    CHECK((result("first", "words") == std::vector<std::int16_t>{1, -2}));
    CHECK((result("mean", "after") == std::vector<std::int16_t>{1, 1}));  // (3 - 1 + 0)/3 and (0 + 2 + 0)/3, half up
}

// What has been taken from a sequence is not overwritten by a node that reads the same sequence later.
void values_stay() {
    SmallModel model = graph("again", R"(, {"name": "end", "kind": "last", "input": "words"},
  {"name": "start", "kind": "first", "input": "words"},
  {"name": "twice", "kind": "concat", "input": ["words", "words"]},
  )" + delay("later", true) + R"(, {"name": "again", "kind": "concat", "input": ["start", "end"]})");
    model.set<std::int16_t>("golden.outputs", "I16", "[1,4]", {0, 0, 0, 0});
    Loaded loaded(model);
    const std::int32_t ids[] = {1, 0, 2, 0};
    std::int16_t y[4];
    CHECK(rindle_run_ids_codes(loaded.stream.get(), ids, 4, 1, 4, nullptr, y, 4) == RINDLE_OK);
    CHECK(y[0] == 3 && y[1] == 0 && y[2] == 1 && y[3] == -2);
}

const Rule kRules[] = {
    {"{\"vocabulary\": 3}", "{\"vocabulary\": 0}", "input.vocabulary: is 0"},
    {"{\"vocabulary\": 3}", "{\"vocabulary\": 1048577}", "input.vocabulary: is 1048577"},
    {"{\"vocabulary\": 3}", "{\"vocabulary\": 3, \"size\": 1}", "unknown key \"size\""},
    {"{\"vocabulary\": 3}", "{\"vocabulary\": 2}", "is U8 [3, 1], must be U8 [2, 1]"},
    {"{\"vocabulary\": 3}", "{\"size\": 1, \"format\": {\"bits\": 16, \"frac\": 0}}", "nodes[0].input: is not ids"},
    {"\"input\": \"input\", \"size\": 2", "\"input\": \"input\", \"size\": 3", "must be U8 [3, 2]"},
    {"\"input\": \"input\", \"size\": 2", "\"input\": \"input\", \"size\": 0", "nodes[0].size: is 0"},
    {"{\"bits\": 3, \"frac\": 0}, \"weight\"", "{\"bits\": 2, \"frac\": 0}, \"weight\"", "nodes[0].weight: row 0 has bits behind"},
    {"{\"bits\": 3, \"frac\": 0}, \"weight\"", "{\"bits\": 3, \"frac\": 0, \"signed\": false}, \"weight\"", "unknown key \"signed\""},
    {"\"weight\": \"rows\"", "\"weight\": \"bows\"", "nodes[0].weight: names the tensor \"bows\""},
    {", \"weight\": \"rows\"", "", "\"weight\" is missing"},
    {"\"reverse\": true", "\"reverse\": false", "nodes[2].reverse: must be true"},
    {"\"reverse\": true", "\"reverse\": 1", "nodes[2].reverse: must be"},
    {"\"concat\", \"input\": [\"before\", \"after\"]", "\"concat\", \"input\": [\"before\"]", "nodes[3].input: has 1 items"},
    {"\"concat\", \"input\": [\"before\", \"after\"]", "\"concat\", \"input\": \"before\"", "nodes[3].input: must be an array"},
    {"[\"before\", \"after\"]", "[\"before\", \"both\"]", "nodes[3].input[1]: \"both\" is not the name of"},
    {"[\"before\", \"after\"]", "[\"before\", \"words\"]", "nodes[3].input: \"before\" and \"words\" must have one format"},
    {"[\"before\", \"after\"]", "[\"before\", \"input\"]", "nodes[3].input[1]: is ids"},
    {"\"concat\", \"input\": [\"before\", \"after\"]", "\"first\", \"input\": \"input\"", "nodes[3].input: is ids"},
    {"\"concat\", \"input\": [\"before\", \"after\"]", "\"first\", \"reverse\": true, \"input\": \"after\"", "unknown key \"reverse\""},
    {"\"version\": 2", "\"version\": 1", "input: unknown key \"vocabulary\""},
    {"\"golden.inputs\"", "\"golden.outputs\"", "golden.inputs: must have the shape [B, T]"},
    {"\"golden.inputs\"", "\"rows\"", "golden.inputs"},
};

void refuses() {
    refuses_each(graph("both"), kRules);
    SmallModel code = graph("both"), padding = graph("both"), id = graph("both");
    code.set<std::uint8_t>("rows", "U8", "[3,1]", {1, 4 << 3, 0});
    refused(code, "nodes[0].weight: row 1, column 1 is -4, which");
    padding.set<std::uint8_t>("rows", "U8", "[3,1]", {1, 0x40, 0});
    refused(padding, "nodes[0].weight: row 1 has bits behind");
    id.set<std::int32_t>("golden.inputs", "I32", "[1,1]", {3});
    refused(id, "golden.inputs: element 0 is 3, must be 0..2");
}

// More frames than any machine has memory for, where rows are needed whole.
void too_long() {
    SmallModel model = graph("end");
    std::string nodes;
    for (int i = 0; i < 12; ++i)
        nodes += "{\"name\": \"e" + std::to_string(i) + R"(", "kind": "embedding", "input": "input", "size": 1048576,
  "format": {"bits": 2, "frac": 0}, "weight": "rows"}, )";
    nodes += R"({"name": "back", "kind": "program", "input": "e3", "reverse": true, "program": {"cell": "copy", "input": "x",
   "states": [], "output": "a", "paths": {"x": {"size": 1048576, "bits": 2, "frac": 0}, "a": {"size": 1048576, "bits": 16, "frac": 0}},
   "codes": {}, "vectors": {}, "ops": [{"op": "requantize", "out": "a", "in": "x", "multiplier": 1, "shift": 0}]}}, )";
    model.document = R"({"version": 2, "id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
 "input": {"vocabulary": 1}, "output": "end", "tables": {}, "provenance": {}, "nodes": [)" + nodes +
                     R"({"name": "end", "kind": "first", "input": "back"}],
 "golden": {"inputs": "golden.inputs", "outputs": "golden.outputs", "lengths": "golden.lengths"}})";
    model.set<std::uint8_t>("rows", "U8", "[1,262144]", std::vector<std::uint8_t>(262144, 0x55));
    model.set<std::int32_t>("golden.inputs", "I32", "[1,1]", {0});
    model.set<std::int16_t>("golden.outputs", "I16", "[1,1048576]", std::vector<std::int16_t>(1048576));
    Loaded loaded(model);
    const std::vector<std::int32_t> ids(1 << 23);
    std::vector<std::int16_t> y(1048576);
    CHECK(rindle_run_ids_codes(loaded.stream.get(), ids.data(), ids.size(), 1, ids.size(), nullptr, y.data(), y.size()) ==
          RINDLE_NO_MEMORY);
    CHECK(said("8388608 frames"));
    CHECK(rindle_run_ids_codes(loaded.stream.get(), ids.data(), 2, 1, 2, nullptr, y.data(), y.size()) == RINDLE_OK);
    CHECK(y[0] == 1 && y.back() == 1);
}

// A long row is cut where no node needs it whole, short ones stand side by side: the memory of a run does not grow with its rows.
void rows_in_blocks() {
    const std::int32_t lengths[] = {1000, 3, 5, 70};
    for (bool whole : {false, true}) {
        SmallModel small = graph("end", R"(, {"name": "end", "kind": "mean", "input": "both"})");
        if (!whole) small.document = replaced(small.document, ", \"reverse\": true", "");
        small.set<std::int16_t>("golden.outputs", "I16", "[1,4]", std::vector<std::int16_t>(4));
        const Loaded loaded(small);
        const rindle::Model& model = *loaded.model->model;
        CHECK(model.whole_rows == whole && model.block_frames == 60);
        rindle::Block block(model);
        rindle::Rows rows(model, 4, 1000, lengths);
        std::size_t row = 0, frame = 0, most = 0;
        while (rows.next(block)) {
            std::size_t frames = 0;
            for (const rindle::Piece& piece : block.pieces()) {
                CHECK(piece.row == row && piece.begin == frame && piece.first == (frame == 0));
                frame += piece.frames;
                frames += piece.frames;
                CHECK(piece.last == (frame == static_cast<std::size_t>(lengths[row])));
                if (piece.last) ++row, frame = 0;
            }
            most = std::max(most, frames);
        }
        CHECK(row == 4 && most == (whole ? 1000 : 60));
    }
}

void streams_ids() {
    SmallModel model = graph("before");
    model.document = replaced(model.document, ", \"reverse\": true", "");
    model.set<std::int16_t>("golden.outputs", "I16", "[1,1,2]", {0, 0});
    Loaded loaded(model);
    rindle_stream* stream = loaded.stream.get();
    std::int16_t y[2];
    float f[2];
    CHECK(rindle_step_id_codes(stream, 2, y, 2) == RINDLE_OK && y[0] == 0 && y[1] == 0);
    CHECK(rindle_step_id_codes(stream, 3, y, 2) == RINDLE_INVALID_ARGUMENT && said("the id 3, must be 0..2"));
    CHECK(rindle_step_id_codes(stream, -1, y, 2) == RINDLE_INVALID_ARGUMENT && said("the id -1"));
    CHECK(rindle_step_id_codes(stream, INT32_MIN, y, 2) == RINDLE_INVALID_ARGUMENT);
    CHECK(rindle_step_codes(stream, y, 1, y, 2) == RINDLE_INVALID_ARGUMENT && said("reads ids"));
    CHECK(rindle_step_id(stream, 0, f, 2) == RINDLE_OK && f[0] == -1 && f[1] == 2);
    CHECK(rindle_step_id(stream, 0, f, 3) == RINDLE_INVALID_ARGUMENT && said("y has 3"));
    CHECK(rindle_step_id(stream, 0, nullptr, 2) == RINDLE_INVALID_ARGUMENT && said("y is NULL"));
}

}  // namespace

void test_graph() {
    both_directions();
    ends();
    values_stay();
    refuses();
    too_long();
    rows_in_blocks();
    streams_ids();
}
