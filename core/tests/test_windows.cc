// Windows, gather, max and reversed programs behind them, in random chains, against plain loops over lists of frames; streams
// of what is causal; rows that are too short.
#include <algorithm>
#include <numeric>
#include <random>

#include "loaded.h"

namespace {

using Sequence = std::vector<std::vector<int>>;  // frames of codes

std::mt19937 generator(6);

int between(int least, int most) { return least + static_cast<int>(generator() % static_cast<unsigned>(most - least + 1)); }

struct Window {
    int size, dilation, stride, before, after;

    // (23), and no frames where there is no whole one
    Sequence of(const Sequence& x) const {
        const int frames = static_cast<int>(x.size());
        Sequence y;
        for (int first = -before; first + dilation * (size - 1) < frames + after; first += stride) {
            y.emplace_back();
            for (int k = 0; k < size; ++k) {
                const int at = first + k * dilation;
                const bool inside = at >= 0 && at < frames;
                for (std::size_t i = 0; i < x[0].size(); ++i) y.back().push_back(inside ? x[static_cast<std::size_t>(at)][i] : 0);
            }
        }
        return y;
    }
    std::string text(const std::string& name, const std::string& input) const {
        return "{\"name\": \"" + name + "\", \"kind\": \"window\", \"input\": \"" + input + "\", \"size\": " + std::to_string(size) +
               ", \"dilation\": " + std::to_string(dilation) + ", \"stride\": " + std::to_string(stride) + ", \"before\": " +
               std::to_string(before) + ", \"after\": " + std::to_string(after) + "}";
    }
};

// A program that gives what it read the time before, in its own direction.
std::string delay(const std::string& name, const std::string& input, std::size_t features, bool reverse) {
    const std::string format = "{\"size\": " + std::to_string(features) + ", \"bits\": 16, \"frac\": 0}";
    return "{\"name\": \"" + name + "\", \"kind\": \"program\", \"input\": \"" + input + "\"" + (reverse ? ", \"reverse\": true" : "") +
           R"(, "program": {"cell": "delay", "input": "x", "states": [["d", "e"]], "output": "d", "codes": {}, "vectors": {}, "paths": {"x": )" +
           format + ", \"d\": " + format + ", \"e\": " + format +
           R"(}, "ops": [{"op": "clip", "out": "e", "in": "x", "lo": -32768, "hi": 32767}]}})";
}

Sequence delayed(const Sequence& x, bool reverse) {
    Sequence y = x;
    if (reverse) std::reverse(y.begin(), y.end());
    y.insert(y.begin(), std::vector<int>(x[0].size()));
    y.pop_back();
    if (reverse) std::reverse(y.begin(), y.end());
    return y;
}

// A chain of nodes, and what it makes of a row: no frames where a window on the way has none.
struct Chain {
    struct Link {
        int kind;  // 0 window, 1 gather, 2 delay, 3 reversed delay
        Window window;
        std::vector<int> index;
    };
    std::size_t features = static_cast<std::size_t>(between(1, 3));
    std::vector<Link> links;
    std::string end;  // "", or a node that makes a vector

    Chain() {
        std::size_t size = features;
        for (int n = between(1, 4); n > 0; --n) {
            Link link{std::max(0, between(-2, 3)), {between(1, 3), between(1, 3), 1, 0, 0}, {}};
            if (link.kind == 0 && size > 30) link.kind = 2;
            if (link.kind == 0) {
                Window& w = link.window;
                w.before = w.dilation * (w.size - 1);
                if (between(0, 1)) w = {w.size, w.dilation, between(1, 3), between(0, 4), between(0, 4)};
                size *= static_cast<std::size_t>(w.size);
            } else if (link.kind == 1) {
                for (int k = between(1, 4); k > 0; --k) link.index.push_back(between(0, static_cast<int>(size) - 1));
                size = link.index.size();
            }
            links.push_back(link);
        }
        const char* const ends[] = {"", "", "max", "mean", "last", "first"};
        end = ends[between(0, 5)];
    }

    SmallModel model() const {
        std::string nodes, input = "input";
        std::size_t size = features;
        const int frames = 40;  // long enough for every window
        SmallModel small = sample("", "", features, frames);
        for (const Link& link : links) {
            const std::string name = "n" + std::to_string(&link - links.data());
            if (!nodes.empty()) nodes += ", ";
            if (link.kind == 0) {
                nodes += link.window.text(name, input);
                size *= static_cast<std::size_t>(link.window.size);
            } else if (link.kind == 1) {
                nodes += "{\"name\": \"" + name + "\", \"kind\": \"gather\", \"input\": \"" + input + "\", \"index\": \"" + name + "\"}";
                size = link.index.size();
                small.set<std::int32_t>(name, "I32", "[" + std::to_string(size) + "]", {link.index.begin(), link.index.end()});
            } else {
                nodes += delay(name, input, size, link.kind == 3);
            }
            input = name;
        }
        if (!end.empty()) nodes += ", {\"name\": \"end\", \"kind\": \"" + end + "\", \"input\": \"" + input + "\"}";
        small.document = replaced(small.document, "\"nodes\": []", "\"nodes\": [" + nodes + "]");
        small.document = replaced(small.document, "\"output\": \"\"", "\"output\": \"" + (end.empty() ? input : "end") + "\"");
        const std::size_t made = end.empty() ? of(Sequence(frames, std::vector<int>(features))).size() : 1;
        return settled(small, "[1," + (end.empty() ? std::to_string(made) + "," : "") + std::to_string(size) + "]", made * size);
    }

    Sequence of(Sequence x) const {
        for (const Link& link : links) {
            if (x.empty()) return {};
            if (link.kind == 0) x = link.window.of(x);
            if (link.kind == 1)
                for (auto& frame : x) {
                    std::vector<int> chosen;
                    for (int i : link.index) chosen.push_back(frame[static_cast<std::size_t>(i)]);
                    frame = chosen;
                }
            if (link.kind >= 2 && !x.empty()) x = delayed(x, link.kind == 3);
        }
        if (end.empty() || x.empty()) return x;
        if (end == "first") return {x.front()};
        if (end == "last") return {x.back()};
        std::vector<int> y = x[0];
        for (std::size_t i = 0; i < y.size(); ++i) {
            const int frames = static_cast<int>(x.size());
            for (int t = 1; t < frames; ++t) {
                const int v = x[static_cast<std::size_t>(t)][i];
                y[i] = end == "max" ? std::max(y[i], v) : y[i] + v;
            }
            if (end == "mean") {  // (21)
                const int n = 2 * y[i] + frames, d = 2 * frames;
                y[i] = n / d - (n % d < 0);
            }
        }
        return {y};
    }
};

std::vector<std::int16_t> flat(const Sequence& frames) {
    std::vector<std::int16_t> codes;
    for (const auto& frame : frames) codes.insert(codes.end(), frame.begin(), frame.end());
    return codes;
}

// Frame by frame, and through a saved state that another stream goes on from.
void streams(const SmallModel& model, Loaded& loaded, const Sequence& x, const Sequence& wanted, bool sequence) {
    Loaded other(model);
    std::vector<std::int16_t> y(rindle_output_size(loaded.model.get()));
    std::vector<unsigned char> state(rindle_state_size(loaded.model.get()));
    rindle_stream* stream = loaded.stream.get();
    CHECK(rindle_reset(stream) == RINDLE_OK);
    for (std::size_t t = 0; t < x.size(); ++t) {
        const std::vector<std::int16_t> frame(x[t].begin(), x[t].end());
        CHECK(rindle_step_codes(stream, frame.data(), frame.size(), y.data(), y.size()) == RINDLE_OK);
        if (sequence || t + 1 == x.size()) CHECK(std::equal(y.begin(), y.end(), wanted[sequence ? t : 0].begin()));
        CHECK(rindle_state_save(stream, state.data(), state.size()) == RINDLE_OK);
        stream = stream == loaded.stream.get() ? other.stream.get() : loaded.stream.get();
        CHECK(rindle_state_restore(stream, state.data(), state.size()) == RINDLE_OK);
        std::vector<unsigned char> again(state.size());
        CHECK(rindle_state_save(stream, again.data(), again.size()) == RINDLE_OK && again == state);
    }
}

void chains_equal_loops() {
    int streamed = 0, refused = 0, grown = 0, shrunk = 0;
    for (int round = 0; round < 300; ++round) {
        const Chain chain;
        const SmallModel model = chain.model();
        Loaded loaded(model);
        const std::size_t out = rindle_output_size(loaded.model.get()), frames = static_cast<std::size_t>(between(1, 12));
        const std::size_t rows = 3;
        std::vector<std::int32_t> lengths;
        std::vector<Sequence> x(rows), wanted;
        std::vector<std::int16_t> codes;
        for (Sequence& row : x) {
            lengths.push_back(between(1, static_cast<int>(frames)));
            for (std::size_t t = 0; t < frames; ++t) {
                row.emplace_back();
                for (std::size_t i = 0; i < chain.features; ++i) row.back().push_back(between(-500, 500));
            }
            const auto row_codes = flat(row);
            codes.insert(codes.end(), row_codes.begin(), row_codes.end());
            row.resize(static_cast<std::size_t>(lengths.back()));
            wanted.push_back(chain.of(row));
        }
        const std::size_t made = chain.of(Sequence(frames, std::vector<int>(chain.features))).size();
        CHECK(rindle_output_frames(loaded.model.get(), frames) == made);
        const auto short_row = std::find_if(wanted.begin(), wanted.end(), [](const Sequence& row) { return row.empty(); });
        if (short_row != wanted.end()) {
            std::vector<std::int16_t> y(rows * made * out, 99);
            CHECK(rindle_run_codes(loaded.stream.get(), codes.data(), codes.size(), rows, frames, lengths.data(), y.data(), y.size()) ==
                  RINDLE_INVALID_ARGUMENT);
            const std::size_t row = static_cast<std::size_t>(short_row - wanted.begin());
            CHECK(said("row " + std::to_string(row) + " has " + std::to_string(lengths[row]) + " frames: too short for the window \"n"));
            std::size_t least = 0;  // the first number of frames for which the window that is named has one
            const std::size_t at = std::string(rindle_error()).find("\"n");
            if (at == std::string::npos) continue;  // a failure that has been counted
            const std::string name = std::string(rindle_error()).substr(at + 2, 1);
            Chain part = chain;
            part.end.clear();
            part.links.resize(static_cast<std::size_t>(std::stoi(name)) + 1);
            do ++least;
            while (part.of(Sequence(least, std::vector<int>(chain.features))).empty());
            CHECK(said("needs at least " + std::to_string(least)));
            CHECK(std::all_of(y.begin(), y.end(), [](std::int16_t v) { return v == 99; }));
            ++refused;
            continue;
        }
        const auto y = loaded.run(codes, rows, lengths);
        for (std::size_t row = 0; row < rows; ++row) {
            const auto own = flat(wanted[row]);
            const std::int16_t* found = y.data() + row * made * out;
            CHECK(std::equal(own.begin(), own.end(), found));
            CHECK(std::all_of(found + own.size(), found + made * out, [](std::int16_t v) { return v == 0; }));
        }
        grown += made > frames, shrunk += chain.end.empty() && made < frames;
        if (rindle_can_stream(loaded.model.get()) == RINDLE_OK) {
            streams(model, loaded, x[0], wanted[0], chain.end.empty());
            ++streamed;
        } else {
            std::vector<std::int16_t> one(out);
            CHECK(rindle_step_codes(loaded.stream.get(), codes.data(), chain.features, one.data(), out) == RINDLE_NOT_CAUSAL);
        }
    }
    CHECK(streamed > 20 && refused > 10 && grown > 10 && shrunk > 10);  // or the loop has not tried what it is for
}

// What a stream is refused for.
void says_why() {
    const auto why = [](const std::string& node) {
        Loaded loaded(settled(sample(node, "node", 1, 5), node.find("max") != std::string::npos ? "[1,1]" : "[1,5,1]",
                              node.find("max") != std::string::npos ? 1 : 5));
        CHECK(rindle_can_stream(loaded.model.get()) == RINDLE_NOT_CAUSAL);
        return std::string(rindle_error());
    };
    CHECK(why("{\"name\": \"node\", \"kind\": \"max\", \"input\": \"input\"}").find("\"node\" is the maximum over the whole sequence") !=
          std::string::npos);
    const std::string ahead = Window{2, 1, 1, 0, 1}.text("ahead", "input");
    const std::string all = ahead + R"(, {"name": "node", "kind": "gather", "input": "ahead", "index": "index"})";
    SmallModel model = sample(all, "node", 1, 5);
    model.set<std::int32_t>("index", "I32", "[1]", {1});
    Loaded reads_ahead(settled(model, "[1,5,1]", 5));
    CHECK(rindle_can_stream(reads_ahead.model.get()) == RINDLE_NOT_CAUSAL && said("\"ahead\" reads frames ahead"));
    CHECK((reads_ahead.run({1, 2, 3}, 1) == std::vector<std::int16_t>{2, 3, 0}));
    const std::string halved = Window{1, 1, 2, 0, 0}.text("node", "input");
    Loaded changes(settled(sample(halved, "node", 1, 5), "[1,3,1]", 3));
    CHECK(rindle_can_stream(changes.model.get()) == RINDLE_NOT_CAUSAL && said("\"node\" changes the number of frames"));
    CHECK(rindle_output_frames(changes.model.get(), 0) == 0 && rindle_output_frames(changes.model.get(), SIZE_MAX) == 0);
    CHECK(rindle_output_frames(changes.model.get(), 7) == 4);
    std::int16_t x[5] = {1, 2, 3, 4, 5}, y[5];
    CHECK(rindle_run_codes(changes.stream.get(), x, 5, 1, 5, nullptr, y, 5) == RINDLE_INVALID_ARGUMENT);
    CHECK(said("y has 5 elements, must have batch 1 * frames 3 * features 1"));
}

// A saved ring stands where its node does, oldest first, and is limited to the codes of its input.
void saves_rings() {
    SmallModel model = sample(Window{3, 2, 1, 4, 0}.text("w", "input") + ", " + delay("late", "w", 3, false), "late", 1, 3);
    model.document = replaced(model.document, "\"format\": {\"bits\": 16", "\"format\": {\"bits\": 8");
    model.document = replaced(model.document, "\"x\": {\"size\": 3, \"bits\": 16", "\"x\": {\"size\": 3, \"bits\": 8");
    for (const char* path : {"\"d\"", "\"e\""})
        model.document = replaced(model.document, std::string(path) + ": {\"size\": 3, \"bits\": 16", std::string(path) + ": {\"size\": 3, \"bits\": 8");
    model.document = replaced(model.document, "-32768, \"hi\": 32767", "-127, \"hi\": 127");
    Loaded loaded(settled(model, "[1,3,3]", 9));
    std::vector<unsigned char> state(rindle_state_size(loaded.model.get()));
    CHECK(state.size() == 44 + 2 * (3 + 4));
    std::int16_t y[3];
    for (std::int16_t t = 1; t <= 6; ++t) CHECK(rindle_step_codes(loaded.stream.get(), &t, 1, y, 3) == RINDLE_OK);
    CHECK(y[0] == 1 && y[1] == 3 && y[2] == 5);
    CHECK(rindle_state_save(loaded.stream.get(), state.data(), state.size()) == RINDLE_OK);
    const std::vector<unsigned char> values(state.begin() + 44, state.end());
    CHECK((values == std::vector<unsigned char>{3, 0, 4, 0, 5, 0, 6, 0, 2, 0, 4, 0, 6, 0}));
    state[44 + 7] = 1;  // 262 is no code of 8 bits
    CHECK(rindle_state_restore(loaded.stream.get(), state.data(), state.size()) == RINDLE_INVALID_ARGUMENT && said("outside the range"));
}

const Rule kRules[] = {
    {"\"size\": 3, \"dilation\": 2", "\"size\": 0, \"dilation\": 2", "nodes[0].size: is 0, must be 1..4096"},
    {"\"size\": 3, \"dilation\": 2", "\"size\": 4097, \"dilation\": 2", "nodes[0].size: is 4097"},
    {"\"dilation\": 2", "\"dilation\": 0", "nodes[0].dilation: is 0"},
    {"\"size\": 3, \"dilation\": 2", "\"size\": 4096, \"dilation\": 257", "nodes[0]: spans 1052415 frames"},
    {"\"stride\": 1, \"before\": 4", "\"stride\": 0, \"before\": 4", "nodes[0].stride: is 0"},
    {"\"before\": 4", "\"before\": -1", "nodes[0].before: is -1"},
    {"\"before\": 4", "\"before\": 1048577", "nodes[0].before: is 1048577"},
    {"\"before\": 4", "\"before\": 3", "nodes[2].input: \"picked\" and \"input\" are not of one time base"},
    {"\"before\": 4, \"after\": 0", "\"before\": 4, \"after\": 1048577", "nodes[0].after: is 1048577"},
    {"\"before\": 4, \"after\": 0", "\"before\": 4", "nodes[0]: key \"after\" is missing"},
    {"\"before\": 4, \"after\": 0", "\"before\": 4, \"after\": 0, \"x\": 1", "unknown key \"x\""},
    {"\"input\": \"both\"}", "\"input\": \"both\"}, {\"name\": \"w\", \"kind\": \"window\", \"input\": \"top\", \"size\": 1, \"dilation\": 1, "
     "\"stride\": 1, \"before\": 0, \"after\": 0}", "nodes[4].input: \"top\" is not a sequence; window needs one"},
    {"\"kind\": \"max\", \"input\": \"both\"}", "\"kind\": \"max\", \"input\": \"both\"}, {\"name\": \"w\", \"kind\": \"max\", \"input\": \"top\"}",
     "nodes[4].input: \"top\" is not a sequence; max needs one"},
    {"\"version\": 3", "\"version\": 2", "nodes[0].kind: must be one of"},
    {"\"index\": \"index\"", "\"index\": \"gone\"", "nodes[1].index: names the tensor \"gone\""},
};

void refuses() {
    const SmallModel model = small_windows()[1];
    refuses_each(model, kRules);
    SmallModel index = model, negative = model, dtype = model;
    index.set<std::int32_t>("index", "I32", "[2]", {6, 0});
    refused(index, "nodes[1].index: element 0 is 6, must be 0..5");
    negative.set<std::int32_t>("index", "I32", "[2]", {0, -1});
    refused(negative, "nodes[1].index: element 1 is -1");
    dtype.set<std::int16_t>("index", "I16", "[2]", {0, 0});
    refused(dtype, "nodes[1].index: tensor \"index\" is I16 [2], must be I32 [2]");

    // golden rows and windows
    const std::string narrow = Window{3, 1, 2, 0, 0}.text("w", "input");
    SmallModel golden = settled(sample(narrow, "w", 1, 7), "[1,3,3]", 9);
    golden.set<std::int32_t>("golden.lengths", "I32", "[1]", {2});
    refused(golden, "golden.lengths: a row of 2 frames is too short for the window \"w\"");
    golden.set<std::int32_t>("golden.lengths", "I32", "[1]", {4});
    refused(golden, "golden.outputs: element 3 is not 0 past its row's length");
    golden.set<std::int16_t>("golden.outputs", "I16", "[1,7,3]", std::vector<std::int16_t>(21));
    refused(golden, "golden.outputs: tensor \"golden.outputs\" is I16 [1, 7, 3], must be I16 [1, 3, 3]");

    // what a window keeps counts: 4096 * 4 * 1024 elements are the most; it is refused before anything is allocated
    const auto large = [](int size) {
        return settled(sample(Window{2, 4096, 1, 4096, 0}.text("w", "input"), "w", static_cast<std::size_t>(size), 1),
                       "[1,1," + std::to_string(2 * size) + "]", static_cast<std::size_t>(2 * size));
    };
    CHECK((Loaded(large(4000)), true));
    SmallModel most = large(4000);
    most.document = replaced(most.document, "\"input\": {\"size\": 4000", "\"input\": {\"size\": 4096");
    refused(most, "the paths so far have 16785408 elements; a model has at most 16777216");
    SmallModel features = large(4000);
    features.document = replaced(features.document, "\"input\": {\"size\": 4000", "\"input\": {\"size\": 524289");
    refused(features, "nodes[0]: has 1048578 features, size * those of its input, must have at most 2^20");
}

// Windows that make more frames than there can be, or than any machine has memory for.
void too_long() {
    const auto chain = [](int windows, std::size_t frames) {
        std::string nodes;
        for (int i = 0; i < windows; ++i)
            nodes += Window{1, 1, 1, 1 << 20, 1 << 20}.text("w" + std::to_string(i), i ? "w" + std::to_string(i - 1) : "input") + ", ";
        SmallModel model = sample(nodes + R"({"name": "end", "kind": "last", "input": "w)" + std::to_string(windows - 1) + "\"}", "end", 1, 1);
        model.set<std::int16_t>("golden.outputs", "I16", "[1,1]", {0});
        Loaded loaded(model);
        const std::vector<std::int16_t> x(frames);
        std::int16_t y = 99;
        CHECK(rindle_output_frames(loaded.model.get(), frames) == 1);
        const rindle_status status = rindle_run_codes(loaded.stream.get(), x.data(), frames, 1, frames, nullptr, &y, 1);
        CHECK(y == 99);
        return status;
    };
    CHECK(chain(1023, (1 << 21) + 1) == RINDLE_INVALID_ARGUMENT);
    CHECK(said("the window \"w1022\" makes 2147483649 frames of the 2097153 of row 0: 2^31 or more"));
    CHECK(chain(1000, 1) == RINDLE_NO_MEMORY && said("not enough memory for the values of a row of 1 frames"));
}

}  // namespace

// A stream: two causal windows, a gather of them, both joined, in floats or not; and a graph that needs the whole row.
std::vector<SmallModel> small_windows() {
    SmallModel causal = sample(Window{3, 2, 1, 4, 0}.text("w", "input") + R"(, {"name": "picked", "kind": "gather", "input": "w", "index": "index"},
  {"name": "both", "kind": "concat", "input": ["picked", "input"]}, )" +
                                   delay("late", "both", 4, false) + ", " + Window{2, 1, 1, 1, 0}.text("again", "late"),
                               "again", 2, 8);
    causal.set<std::int32_t>("index", "I32", "[2]", {5, 0});
    SmallModel whole = sample(Window{3, 2, 1, 4, 0}.text("w", "input") + R"(, {"name": "picked", "kind": "gather", "input": "w", "index": "index"},
  {"name": "both", "kind": "concat", "input": ["picked", "input"]}, {"name": "top", "kind": "max", "input": "both"})",
                              "top", 2, 8);
    whole.set<std::int32_t>("index", "I32", "[2]", {5, 0});
    SmallModel strided = sample(Window{3, 1, 2, 2, 1}.text("w", "input") + ", " + delay("late", "w", 6, true) + ", " +
                                    Window{2, 3, 1, 0, 5}.text("again", "late"),
                                "again", 2, 9);
    return {settled(causal, "[1,8,8]", 64), settled(whole, "[1,4]", 4), settled(strided, "[1,7,12]", 84)};
}

void test_windows() {
    chains_equal_loops();
    says_why();
    saves_rings();
    refuses();
    too_long();
}
