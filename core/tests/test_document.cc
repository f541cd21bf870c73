// One hostile file per rule of docs/format.md: each is refused, and the message names the field.
#include <string>

#include "check.h"
#include "api/rindle.h"
#include "small_model.h"

namespace {

rindle_status load(const std::string& file) {
    rindle_model* model = nullptr;
    const rindle_status status = rindle_load(file.data(), file.size(), "portable", &model);
    rindle_free(model);
    return status;
}

void refused(const std::string& file, const std::string& message, rindle_status expected = RINDLE_INVALID_FILE) {
    const rindle_status status = load(file);
    if (status == expected && std::string(rindle_error()).find(message) != std::string::npos) return;
    std::printf("expected status %d with \"%s\", got %d with \"%s\"\n", expected, message.c_str(), status,
                status ? rindle_error() : "");
    ++failures;
}

struct Case {
    const char *from, *to, *message;
};

const Case kDocument[] = {
    {"\"version\": 1", "\"version\": 0", "version: is 0"},
    {"\"version\": 1", "\"version\": 1.0", "version: must be an integer"},
    {"\"version\": 1", "\"version\": \"1\"", "version: must be an integer"},
    {"\"version\": 1,", "", "\"version\" is missing"},
    {"\"version\": 1", "\"version\": 1, \"x\": 2", "unknown key \"x\""},
    {"\"version\": 1", "\"version\": 1, \"version\": 1", "duplicate key"},
    {"ccddeeff\",", "ccddeefG\",", "id: must be 64"},
    {"\"output\": \"final\"", "\"output\": \"finale\"", "output: \"finale\" is not"},
    {"\"output\": \"final\"", "\"output\": \"input\"", "output: must be a node"},
    {"\"provenance\": {", "\"provenance\": [{", "JSON"},
    {"{\"any\": [\"thing\", 1e3, null, {}]}", "7", "provenance: must be an object"},
    // formats and sizes
    {"{\"size\": 2, \"format\"", "{\"size\": 0, \"format\"", "input.size: is 0"},
    {"{\"size\": 2, \"format\"", "{\"size\": 1048577, \"format\"", "input.size: is 1048577"},
    {"\"format\": {\"bits\": 16", "\"format\": {\"bits\": 17", "input.format.bits: is 17"},
    {"\"format\": {\"bits\": 16", "\"format\": {\"bits\": 1", "input.format.bits: is 1"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 16, \"frac\": 65", "frac: is 65"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 16", "\"frac\" is missing"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 16, \"frac\": 4, \"scale\": 1", "both"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 16, \"scale\": 1e-45", "float32 between"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 16, \"scale\": 1.401298464324817e-45", "float32 between"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 8, \"frac\": 4, \"signed\": false", "at most 7"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 7, \"frac\": 4, \"signed\": true", "must be false"},
    {"\"format\": {\"bits\": 16, \"frac\": 4", "\"format\": {\"bits\": 7, \"frac\": 4", "program.input: path \"x\""},
    {"\"scale\": 0.5", "\"scale\": 0.1", "codes.q.scale: must be a float32 between"},
    {"\"scale\": 0.5", "\"scale\": -0.5", "codes.q.scale: must be a float32 between"},
    {"\"scale\": 0.5", "\"scale\": 1e999", "number beyond the range of float64"},
    // nodes
    {"\"kind\": \"last\"", "\"kind\": \"first\"", "nodes[1].kind: must be"},
    {"\"kind\": \"last\"", "\"kind\": \"program\"", "\"program\" is missing"},
    {"\"input\": \"cell\"}", "\"input\": \"final\"}", "nodes[1].input: \"final\" is not"},
    {"{\"name\": \"final\"", "{\"name\": \"cell\"", "nodes[1].name: \"cell\" is the name of an earlier node"},
    {"{\"name\": \"final\"", "{\"name\": \"input\"", "nodes[1].name: \"input\" is reserved"},
    {"\"last\", \"input\": \"cell\"}", "\"last\", \"input\": \"cell\"}, {\"name\": \"m\", \"kind\": \"mean\", \"input\": \"final\"}",
     "nodes[2].input: \"final\" is not a sequence"},
    // paths
    {"\"y\": {\"size\": 2", "\"y\": {\"size\": 3", "bias: tensor \"cell.bias\" is I64 [2], must be I64 [3]"},
    {"\"y\": {\"size\": 2,", "\"y\": {\"size\": 2, \"signed\": false,", "unknown key \"signed\""},
    {"\"g\": {\"size\": 2", "\"g\": {\"size\": 1", "ops[2]: \"y\" has the size 2"},
    {"\"codes\": {\"q\"", "\"codes\": {\"y\"", "codes.y: the name stands in more than one"},
    {"\"x\": {\"size\": 2", "\"spare\": {\"size\": 2, \"bits\": 16, \"frac\": 1}, \"x\": {\"size\": 2", "\"spare\" is never written"},
    {"\"tensor\": \"cell.v\"}", "\"tensor\": \"cell.v\"}, \"w\": {\"size\": 2, \"bits\": 16, \"frac\": 7, \"tensor\": \"cell.v\"}",
     "\"w\" is never used"},
    {"\"theta\": 1", "\"theta\": 127", "codes.q.theta: is 127, must be 0..126"},
    {"\"theta\": 1", "\"theta\": -1", "codes.q.theta: is -1"},
    {"\"theta\": 1", "\"theta\": \"cell.m\"", "must be I16 [2]"},
    {"\"frac\": 7, \"tensor\"", "\"scale\": 0.5, \"tensor\"", "unknown key \"scale\""},
    // the frame
    {"\"program\": {\n   \"cell\": \"test\", \"input\": \"x\"", "\"program\": {\n   \"cell\": \"test\", \"input\": \"q\"",
     "program.input: \"q\" must be one of"},
    {"[[\"s\", \"s.next\"]]", "[[\"s\", \"z\"]]", "states[0]: a state and its next value"},
    {"[[\"s\", \"s.next\"]]", "[[\"s\", \"s.next\"], [\"s\", \"s.next\"]]", "states[1][0]: path \"s\" is written a second time"},
    {"[[\"s\", \"s.next\"]]", "[[\"s\", \"s.next\"], [\"z\", \"z\"]]", "a second time"},
    {"[[\"s\", \"s.next\"]]", "[[\"s\", \"s.next\"], [\"s.next\", \"s.next\"]]", "next value of two states"},
    {"[[\"s\", \"s.next\"]]", "[[\"v\", \"s.next\"]]", "states[0][0]: a state must be one of"},
    {"[[\"s\", \"s.next\"]]", "[[\"s\"]]", "states[0]: has 1 items, must have 2"},
    {"[[\"s\", \"s.next\"]]", "[]", "path \"s\" is read before it is written"},
    {"\"output\": \"s.next\"", "\"output\": \"q\"", "program.output: must be one of"},
    {"\"output\": \"s.next\"", "\"output\": \"r\"", "program.output: \"r\" is not"},
    // operations
    {"{\"op\": \"add\"", "{\"op\": \"div\"", "ops[4].op: \"div\" is not an operation"},
    {"\"in\": [\"s\", \"z\"]", "\"in\": [\"s\"]", "ops[4].in: has 1 items, must have 2"},
    {"\"in\": [\"s\", \"z\"]", "\"in\": [\"s\", \"q\"]", "ops[4].in[1]: \"q\" is a code"},
    {"\"in\": [\"s\", \"z\"]", "\"in\": [\"s\", \"capped\"]", "\"capped\" is read before it is written"},
    {"\"out\": \"sum\"", "\"out\": \"z\"", "ops[4].out: path \"z\" is written a second time"},
    {"\"out\": \"sum\"", "\"out\": \"v\"", "ops[4].out: \"v\" must be one of"},
    {"\"out\": \"q\", \"in\": \"x\"", "\"out\": \"v\", \"in\": \"x\"", "\"v\" is a constant vector"},
    {"\"multiplier\": 5", "\"multiplier\": 4194304", "ops[0].multiplier: is 4194304"},
    {"\"multiplier\": 5", "\"multiplier\": -1", "ops[0].multiplier: is -1"},
    {"\"multiplier\": 5, \"shift\": 2", "\"multiplier\": 5, \"shift\": 41", "ops[0].shift: is 41"},
    {"\"shift\": 1, \"terms\"", "\"shift\": -1, \"terms\"", "ops[1].shift: is -1"},
    {"\"lo\": -90", "\"lo\": -32769", "ops[5].lo: is -32769"},
    {"\"hi\": 90", "\"hi\": -91", "ops[5].hi: is -91, must be -90..32767"},
    {"\"capped\": {\"size\": 2, \"bits\": 16, \"frac\": 5}", "\"capped\": {\"size\": 2, \"bits\": 16, \"frac\": 6}",
     "ops[5]: \"capped\" must have the format of \"sum\""},
    {"\"z\": {\"size\": 2, \"bits\": 16, \"frac\": 8}", "\"z\": {\"size\": 2, \"bits\": 16, \"frac\": 44}", "2^52"},
    {"\"z\": {\"size\": 2, \"bits\": 16, \"frac\": 8}", "\"z\": {\"size\": 2, \"bits\": 16, \"frac\": -34}", "2^52"},
    // affines
    {"\"out\": [\"y\"]", "\"out\": []", "ops[1].out: has 0 items"},
    {"\"out\": [\"y\"]", "\"out\": [\"y\", \"y\"]", "bias: tensor"},
    {"\"gates\": [\"y\"]", "\"gates\": [\"z\"]", "gates[0]: is not a gate"},
    {"\"gates\": [\"y\"]", "\"gates\": [\"y\", \"y\"]", "gates: has 2 items"},
    {"{\"in\": \"q\", \"gates\"", "{\"in\": \"x\", \"gates\"", "terms[0].in: \"x\" is not one of \"codes\""},
    {"\"bits\": 3,", "\"bits\": 9,", "weight: tensor \"cell.weight\" is U8 [2, 1], must be U8 [2, 3]"},
    {"\"bits\": 3,", "\"bits\": 2,", "weight: row 0 has bits behind"},
    {"\"scales\": \"cell.scales\", ", "", "exactly one of"},
    {"\"scales\": \"cell.scales\"", "\"scales\": \"cell.scales\", \"frac\": 1", "exactly one of"},
    {"\"weight\": \"cell.weight\"", "\"weight\": \"cell.wait\"", "weight: names the tensor \"cell.wait\", which"},
    {"\"multiplier\": \"cell.m\"", "\"multiplier\": \"cell.scales\"", "multiplier: tensor \"cell.scales\" is F32"},
    // tables
    {"\"table\": \"ramp\"}", "\"table\": \"lamp\"}", "ops[2].table: \"lamp\" is not"},
    {"\"in\": \"y\", \"table\"", "\"in\": \"v\", \"table\"", "names constants only"},
    {"\"tables\": {", "\"tables\": {\"spare\": {\"function\": \"f\", \"degree\": 0, \"flag\": \"none\", \"x0\": 0, \"p\": 4, \"q\": 0, "
     "\"base\": \"ramp.base\", \"max_error\": 0}, ", "tables.spare: is not used by any operation"},
    {"\"degree\": 1", "\"degree\": 2", "tables.ramp.degree: is 2"},
    {"\"degree\": 1", "\"degree\": 0", "unknown key \"slope\""},
    {"\"flag\": \"odd\"", "\"flag\": \"even\"", "tables.ramp.flag: must be"},
    {"\"x0\": 0", "\"x0\": 1", "tables.ramp.x0: is 1, must be 0 with the flag"},
    {"\"x0\": 0", "\"x0\": 2147483648", "tables.ramp.x0: is 2147483648"},
    {"\"p\": 4", "\"p\": 16", "tables.ramp.p: is 16"},
    {"\"q\": 3", "\"q\": 31", "tables.ramp.q: is 31"},
    {"\"max_error\": 0.5", "\"max_error\": -1", "tables.ramp.max_error: is negative"},
    {"\"base\": \"ramp.base\"", "\"base\": \"golden.inputs\"", "base: tensor \"golden.inputs\" is I16 [1, 3, 2]"},
    // golden
    {"\"inputs\": \"golden.inputs\"", "\"inputs\": \"golden.lengths\"", "golden.inputs: must have the shape [B, T, I]"},
    {"\"outputs\": \"golden.outputs\"", "\"outputs\": \"golden.inputs\"", "golden.outputs: tensor"},
    {"\"lengths\": \"golden.lengths\"", "\"lengths\": \"golden.outputs\"", "golden.lengths: tensor"},
};

// Two small models in one file, and what names them.
void parts() {
    const SmallModel small;
    SmallModel several;
    several.tensors.clear();
    for (const char* name : {"first", "second"})
        for (const auto& [tensor, value] : small.tensors) several.tensors[std::string(name) + "/" + tensor] = value;
    const std::string id(64, 'a');
    several.document = "{\"version\": 4, \"needs\": [\"parts\"], \"id\": \"" + id + "\", \"parts\": [{\"name\": \"first\", \"document\": " +
                       small.document + "}, {\"name\": \"second\", \"document\": " + small.document + "}]}";
    const std::string file = several.file(), one = small.file();
    CHECK(rindle_part_name(file.data(), file.size(), 0) == std::string("first"));
    CHECK(rindle_part_name(file.data(), file.size(), 1) == std::string("second"));
    CHECK(!rindle_part_name(file.data(), file.size(), 2) && !rindle_part_name(one.data(), one.size(), 0));
    CHECK(!rindle_part_name("", 0, 0) && !rindle_part_name(nullptr, 1, 0));
    rindle_model *model = nullptr, *alone = nullptr;
    CHECK(rindle_load_part(file.data(), file.size(), "second", "portable", &model) == RINDLE_OK && model);
    CHECK(rindle_load(one.data(), one.size(), "portable", &alone) == RINDLE_OK);
    CHECK(std::string(rindle_id(model)) == rindle_id(alone) && rindle_input_size(model) == rindle_input_size(alone));
    rindle_free(model);
    rindle_free(alone);
    CHECK(rindle_load_part(file.data(), file.size(), nullptr, nullptr, &model) == RINDLE_INVALID_ARGUMENT && !model);
    CHECK(rindle_load_part(file.data(), file.size(), "third", nullptr, &model) == RINDLE_INVALID_ARGUMENT && !model);
    CHECK(rindle_load_part(one.data(), one.size(), "first", nullptr, &model) == RINDLE_INVALID_ARGUMENT && !model);
    CHECK(rindle_load_part_file("/nonexistent/x.rindle", "first", nullptr, &model) == RINDLE_INVALID_FILE && !model);
    refused(file, "the parts \"first\", \"second\": load one by its name", RINDLE_INVALID_ARGUMENT);
    several.document = replaced(several.document, "\"name\": \"second\"", "\"name\": \"first\"");
    refused(several.file(), "parts[1].name: is \"first\", the name of an earlier part");
}

void documents() {
    for (const Case& c : kDocument) {
        SmallModel model;
        model.document = replaced(model.document, c.from, c.to);
        refused(model.file(), c.message);
    }
    SmallModel newer;
    newer.document = replaced(newer.document, "\"version\": 1", "\"version\": 5, \"news\": 1");
    refused(newer.file(), "update rindle", RINDLE_NEWER_VERSION);
    newer.document = replaced(newer.document, "\"version\": 5, \"news\": 1", "\"version\": 4, \"needs\": [\"news\"], \"news\": 1");
    refused(newer.file(), "needs[0]: this file needs 'news'; update rindle to read it", RINDLE_NEWER_VERSION);
    parts();
    SmallModel long_name;
    long_name.document = replaced(long_name.document, "\"name\": \"final\"", "\"name\": \"" + std::string(257, 'n') + "\"");
    refused(long_name.file(), "nodes[1].name: must have 1..256 bytes");
    SmallModel deep;
    deep.document = replaced(deep.document, "\"thing\"", std::string(31, '[') + std::string(31, ']'));
    refused(deep.file(), "more than 32 levels");
}

template <class T>
void refused_tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                    const std::vector<T>& values, const std::string& message) {
    SmallModel model;
    model.set(name, dtype, shape, values);
    refused(model.file(), message);
}

void tensors() {
    const std::int64_t limit = std::int64_t{1} << 52;
    refused_tensor<std::uint8_t>("cell.weight", "U8", "[2,1]", {0x41, 0}, "weight: row 0 has bits behind its last code");
    refused_tensor<std::uint8_t>("cell.weight", "U8", "[2,1]", {1, 4}, "weight: row 1, column 0 is -4, which no weight may be");
    refused_tensor<std::int32_t>("cell.m", "I32", "[2]", {3, 1 << 22}, "multiplier: row 1 is 4194304");
    refused_tensor<std::int32_t>("cell.m", "I32", "[2]", {-1, 3}, "multiplier: row 0 is -1");
    // (8b) in row 0: A = 3*127, M = 3, R = 1
    refused_tensor<std::int64_t>("cell.bias", "I64", "[2]", {limit - 3 * 3 * 127 - 1, 0}, "row 0 can reach 2^52");
    refused_tensor<std::int64_t>("cell.bias", "I64", "[2]", {0, INT64_MIN}, "row 1 can reach 2^52");
    refused_tensor<float>("cell.scales", "F32", "[2]", {1.0F, 0.0F}, "scales: has a scale");
    refused_tensor<std::int16_t>("ramp.base", "I16", "[3]", {0, 1, 2}, "base: has 3 segments");
    refused_tensor<std::int16_t>("ramp.slope", "I16", "[1]", {0}, "slope: tensor");
    refused_tensor<std::int32_t>("golden.lengths", "I32", "[1]", {4}, "lengths: element 0 is 4, must be 1..3");
    refused_tensor<std::int32_t>("golden.lengths", "I32", "[1]", {0}, "lengths: element 0 is 0, must be 1..3");
    refused_tensor<std::int16_t>("golden.outputs", "I16", "[1,2]", {-128, 0}, "outputs: element 0 is -128");
    refused_tensor<std::int16_t>("spare", "I16", "[1]", {0}, "tensor \"spare\" is not named in the document");
    refused_tensor<std::int16_t>("cell.v", "F64", "[2]", {0}, "dtype: is \"F64\"");
    refused_tensor<std::int16_t>("cell.v", "I16", "[2]", {0}, "spans 2 bytes, but I16 [2] has 4");
    refused_tensor<std::int16_t>("cell.v", "I16", "[2,0]", {}, "shape[1]: is 0");
    refused_tensor<std::int16_t>("cell.v", "I16", "[65536,65536]", {0}, "shape: 2^31 elements or more");

    SmallModel sequence;  // golden outputs of a sequence: zero behind a row's length
    sequence.document = replaced(sequence.document, "\"output\": \"final\"", "\"output\": \"cell\"");
    sequence.set<std::int16_t>("golden.outputs", "I16", "[1,3,2]", {1, 2, 3, 4, 0, 0});
    CHECK(load(sequence.file()) == RINDLE_OK);
    sequence.set<std::int16_t>("golden.outputs", "I16", "[1,3,2]", {1, 2, 3, 4, 0, 1});
    refused(sequence.file(), "outputs: element 5 is not 0 past");

    // The largest bias that (8b) allows.
    SmallModel largest;
    largest.set<std::int64_t>("cell.bias", "I64", "[2]", {limit - 3 * 3 * 127 - 2, 0});
    CHECK(load(largest.file()) == RINDLE_OK);
}

void container() {
    const SmallModel model;
    const std::string file = model.file(), header = model.header();
    CHECK(load(file) == RINDLE_OK);
    for (std::size_t size = 0; size < file.size(); ++size) CHECK(load(file.substr(0, size)) == RINDLE_INVALID_FILE);
    refused(file + "x", "bytes behind the last tensor");
    refused(std::string(7, '\0'), "shorter than the 8 bytes");
    refused(std::string(16, '\xff'), "does not fit a file");
    refused(model.file("[]"), "does not start with '{'");
    refused(model.file("{}"), "no \"__metadata__\"");
    refused(model.file(replaced(header, "\"__metadata__\":{", "\"__metadata__\":{\"format\":\"pt\",")), "unknown key \"format\"");
    refused(model.file(replaced(header, "\"cell.v\":{", "\"cell.v\":{\"x\":1,")), "header.cell.v: unknown key");
    refused(model.file(replaced(header, "\"data_offsets\":[0,", "\"data_offsets\":[-1,")), "is -1");
    // cell.bias is at 0..16, cell.m at 16..24, cell.scales at 24..32, ramp.base at 58..62, ramp.slope at 62..66
    refused(model.file(replaced(header, "[16,24]", "[8,16]")), "neither overlap nor leave holes");
    refused(model.file(replaced(header, "[16,24]", "[24,32]")), "neither overlap nor leave holes");
    refused(model.file(replaced(header, "[62,66]", "[64,68]")) + "xx", "neither overlap nor leave holes");
    refused(model.file(replaced(header, "[62,66]", "[58,62]")).substr(0, file.size() - 4), "neither overlap nor leave holes");
    refused(model.file(replaced(header, "[16,24]", "[16,99999]")), "data_offsets[1]: is 99999");
    refused(model.file(replaced(header, "[16,24]", "[24,16]")), "data_offsets[1]: is 16");
}

}  // namespace

void test_document() {
    documents();
    tensors();
    container();
}
