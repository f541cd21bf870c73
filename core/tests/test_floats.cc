// Float nodes against their formulas, written once more; and that a model with such an output has no codes of it.
#include <cmath>
#include <random>

#include "loaded.h"

namespace {

using Values = std::vector<double>;

constexpr std::size_t kFeatures = 6, kFrames = 5;

// One float node "f" on the input, behind a comma-separated list of keys.
SmallModel single(const std::string& keys, std::size_t out = kFeatures) {
    SmallModel model = sample(R"({"name": "f", "kind": "float", "input": "input", )" + keys + "}", "f", kFeatures, kFrames, 8);
    model.set<float>("weight", "F32", "[2,6]", {1, -2, 3, 0.5F, 0, 7, 0.25F, 1, 1, -1, 2, -3});
    model.set<float>("scale", "F32", "[6]", {1, 2, 3, -1, 0.5F, 0});
    model.set<float>("bias", "F32", "[" + std::to_string(out) + "]", {out == 2 ? std::vector<float>{0.5F, -8} : std::vector<float>{1, 0, 0, -2, 5, 9}});
    for (const char* name : {"weight", "scale", "bias"})
        if (keys.find("\"" + std::string(name) + "\"}") == std::string::npos && keys.find(": \"" + std::string(name) + "\"") == std::string::npos)
            model.tensors.erase(name);
    return settled<float>(model, "[1,5," + std::to_string(out) + "]", kFrames * out);
}

bool close(float found, double wanted) { return std::abs(found - wanted) <= 1e-6 * std::max(1.0, std::abs(wanted)); }

// The node's value of every frame is f of the frame's features; frame by frame, too.
template <class Function>
void is(const std::string& keys, std::size_t out, Function&& f) {
    const SmallModel model = single(keys, out);
    Loaded loaded(model);
    std::mt19937 generator(1);
    std::vector<std::int16_t> codes;
    for (std::size_t i = 0; i < 2 * kFrames * kFeatures; ++i)
        codes.push_back(static_cast<std::int16_t>(i % 7 ? static_cast<int>(generator() % 2048) - 1024 : static_cast<int>(generator() % 65536) - 32768));
    const auto y = loaded.run<float>(codes, 2, {5, 3});
    CHECK(rindle_can_stream(loaded.model.get()) == RINDLE_OK);
    for (std::size_t frame = 0; frame < 2 * kFrames; ++frame) {
        Values x;
        std::vector<float> values, step(out);
        for (std::size_t i = 0; i < kFeatures; ++i) {
            x.push_back(codes[frame * kFeatures + i] / 256.0);
            values.push_back(static_cast<float>(x.back()));
        }
        const Values wanted = f(x);
        CHECK(rindle_step(loaded.stream.get(), values.data(), kFeatures, step.data(), out) == RINDLE_OK);
        for (std::size_t i = 0; i < out; ++i) {
            const float found = y[frame * out + i];
            CHECK(frame < 8 ? close(found, wanted[i]) && found == step[i] : found == 0);  // 8 and 9 are past the second row's end
        }
    }
}

template <class Function>
void is_each(const std::string& op, Function&& f) {
    is("\"op\": \"" + op + "\"", kFeatures, [&](Values x) {
        for (double& v : x) v = f(v);
        return x;
    });
}

Values softmax(const Values& x, std::size_t groups) {
    Values y(x.size());
    const std::size_t n = x.size() / groups;
    for (std::size_t g = 0; g < groups; ++g)
        for (std::size_t i = 0; i < n; ++i) {
            double sum = 0;
            for (std::size_t k = 0; k < n; ++k) sum += std::exp(x[g * n + k] - x[g * n + i]);
            y[g * n + i] = 1 / sum;
        }
    return y;
}

void are_their_formulas() {
    is_each("relu", [](double x) { return x < 0 ? 0 : x; });
    is_each("sigmoid", [](double x) { return 0.5 + 0.5 * std::tanh(x / 2); });
    is_each("tanh", [](double x) { return 1 - 2 / (std::exp(2 * x) + 1); });
    is_each("gelu", [](double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; });
    is_each("gelu_tanh", [](double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * std::pow(x, 3)))); });
    for (std::size_t groups : {1U, 2U, 3U, 6U}) {
        const std::string keys = ", \"groups\": " + std::to_string(groups);
        is("\"op\": \"softmax\"" + keys, kFeatures, [=](const Values& x) { return softmax(x, groups); });
        is("\"op\": \"log_softmax\"" + keys, kFeatures, [=](const Values& x) {
            Values y(x.size());
            const std::size_t n = x.size() / groups;
            for (std::size_t i = 0; i < x.size(); ++i) {
                double sum = 0;
                for (std::size_t k = i / n * n; k < i / n * n + n; ++k) sum += std::exp(x[k] - x[i]);
                y[i] = -std::log(sum);
            }
            return y;
        });
    }
    const auto normal = [](const Values& x, double epsilon) {
        double mean = 0, squares = 0;
        for (double v : x) mean += v / 6, squares += v * v / 6;
        Values y;
        for (double v : x) y.push_back((v - mean) / std::sqrt(squares - mean * mean + epsilon));
        return y;
    };
    is("\"op\": \"layer_norm\", \"epsilon\": 1e-5", kFeatures, [&](const Values& x) { return normal(x, 1e-5); });
    is("\"op\": \"layer_norm\", \"epsilon\": 2, \"weight\": \"scale\", \"bias\": \"bias\"", kFeatures, [&](const Values& x) {
        const double scale[] = {1, 2, 3, -1, 0.5, 0}, bias[] = {1, 0, 0, -2, 5, 9};
        Values y = normal(x, 2);
        for (std::size_t i = 0; i < 6; ++i) y[i] = y[i] * scale[i] + bias[i];
        return y;
    });
    const auto linear = [](const Values& x, double a, double b) {
        return Values{x[0] - 2 * x[1] + 3 * x[2] + 0.5 * x[3] + 7 * x[5] + a, 0.25 * x[0] + x[1] + x[2] - x[3] + 2 * x[4] - 3 * x[5] + b};
    };
    is("\"op\": \"linear\", \"weight\": \"weight\"", 2, [&](const Values& x) { return linear(x, 0, 0); });
    is("\"op\": \"linear\", \"weight\": \"weight\", \"bias\": \"bias\"", 2, [&](const Values& x) { return linear(x, 0.5, -8); });
}

// Floats of floats, of codes of the same graph, on sequences and on vectors; over the row where attention stands.
void stand_in_graphs() {
    Loaded loaded(small_floats()[1]);
    CHECK(rindle_can_stream(loaded.model.get()) == RINDLE_NOT_CAUSAL && said("\"context\" weighs the whole sequence"));
    const std::vector<std::int16_t> codes = {256, 0, -512, 64, 128, 512, 0, 0, 100, -100};
    const auto y = loaded.run<float>(codes, 1);
    double total = 0, sums[2] = {};
    for (std::size_t t = 0; t < 5; ++t) {
        const double a = codes[2 * t] / 256.0, b = codes[2 * t + 1] / 256.0;
        const double weight = std::exp(2 * a - b);
        total += weight;
        sums[0] += weight * a, sums[1] += weight * b;
    }
    double mean[2] = {std::floor(-28 / 5.0 + 0.5) / 256, std::floor(476 / 5.0 + 0.5) / 256};  // (21)
    for (std::size_t i = 0; i < 2; ++i) CHECK(close(y[i], (sums[i] / total + mean[i]) * (sums[i] / total)));

    // A row is that row alone.
    const auto rows = loaded.run<float>({256, 0, -512, 64, 128, 512, 0, 0, 100, -100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 2, {5, 2});
    const auto alone = loaded.run<float>({1, 2, 3, 4}, 1);
    CHECK(rows[0] == y[0] && rows[1] == y[1] && rows[2] == alone[0] && rows[3] == alone[1]);
}

void have_no_codes() {
    Loaded loaded(small_floats()[0]);
    const rindle_model* model = loaded.model.get();
    rindle_stream* stream = loaded.stream.get();
    CHECK(rindle_output_is_float(model) == 1 && rindle_output_scale(model) == 0 && rindle_golden_floats(model));
    std::size_t batch, frames;
    const std::int16_t *inputs, *outputs;
    const std::int32_t* lengths;
    rindle_golden(model, &batch, &frames, &inputs, &lengths, &outputs);
    CHECK(inputs && !outputs);
    std::int16_t x[2] = {}, y[64];
    CHECK(rindle_step_codes(stream, x, 2, y, rindle_output_size(model)) == RINDLE_INVALID_ARGUMENT && said("the output of this model is float"));
    CHECK(rindle_run_codes(stream, x, 2, 1, 1, nullptr, y, rindle_output_size(model)) == RINDLE_INVALID_ARGUMENT && said("is float, not codes"));
    Loaded codes{SmallModel()};
    CHECK(rindle_output_is_float(codes.model.get()) == 0 && !rindle_golden_floats(codes.model.get()));
}

const Rule kRules[] = {
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"softmin\", \"groups\": 2", "nodes[2].op: \"softmin\" is not a float operation"},
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"softmax\", \"groups\": 3", "nodes[2].groups: is 3, must divide the 4 features"},
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"softmax\", \"groups\": 0", "nodes[2].groups: is 0"},
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"softmax\"", "nodes[2]: key \"groups\" is missing"},
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"relu\", \"groups\": 2", "nodes[2]: unknown key \"groups\""},
    {"\"op\": \"softmax\", \"groups\": 2", "\"op\": \"softmax\", \"groups\": 2, \"x\": 1", "nodes[2]: unknown key \"x\""},
    {"\"epsilon\": 0.5", "\"epsilon\": -0.5", "nodes[3].epsilon: is negative"},
    {"\"epsilon\": 0.5", "\"epsilon\": \"0.5\"", "nodes[3].epsilon: must be a finite number"},
    {"\"op\": \"layer_norm\", \"epsilon\": 0.5, \"weight\": \"scale\"", "\"op\": \"layer_norm\", \"epsilon\": 0.5, \"weight\": \"weight\"",
     "nodes[3].weight: tensor \"weight\" is F32 [3, 4], must be F32 [4]"},
    {"\"weight\": \"weight\"", "\"weight\": \"scale\"", "nodes[4].weight: tensor \"scale\" is F32 [4], must be F32 [4, 4]"},
    {"\"op\": \"add\", \"input\": [\"head\", \"head\"]", "\"op\": \"add\", \"input\": [\"head\", \"norm\"]",
     "nodes[5].input: \"head\" has the size 3, but \"norm\" has 4"},
    {"\"op\": \"add\", \"input\": [\"head\", \"head\"]", "\"op\": \"add\", \"input\": [\"head\"]", "nodes[5].input: has 1 items, must have 2"},
    {"\"op\": \"add\", \"input\": [\"head\", \"head\"]", "\"op\": \"add\", \"input\": \"head\"", "nodes[5].input: must be an array"},
    {"\"op\": \"add\", \"input\": [\"head\", \"head\"]", "\"op\": \"tanh\", \"input\": [\"head\", \"head\"]", "nodes[5].input: must be a string"},
    {"\"op\": \"add\", \"input\": [\"head\", \"head\"]", "\"op\": \"attention\", \"input\": [\"head\", \"head\"]",
     "nodes[5].input: \"head\" has 3 features; scores have 1"},
    {"\"version\": 3", "\"version\": 2", "nodes[0].kind: must be one of"},
};

void refuses() {
    const SmallModel model = small_floats()[0];
    refuses_each(model, kRules);
    // floats are read by float nodes alone
    const auto behind = [&](const std::string& node) {
        SmallModel other = model;
        other.document = replaced(other.document, "\"op\": \"tanh\", \"input\": \"sum\"}", "\"op\": \"tanh\", \"input\": \"sum\"}, " + node);
        return other;
    };
    refused(behind(R"({"name": "x", "kind": "last", "input": "sum"})"), "nodes[7].input: \"sum\" is float, which only float nodes read");
    refused(behind(R"({"name": "x", "kind": "window", "input": "sum", "size": 1, "dilation": 1, "stride": 1, "before": 0, "after": 0})"),
            "is float, which only float nodes read");
    refused(behind(R"({"name": "x", "kind": "concat", "input": ["both", "sum"]})"), "nodes[7].input[1]: \"sum\" is float");
    refused(behind(R"({"name": "x", "kind": "last", "input": "input"}, {"name": "z", "kind": "float", "op": "mul", "input": ["input", "x"]})"),
            "nodes[8].input: one of \"input\" and \"x\" is a sequence, the other a vector");
    refused(behind(R"({"name": "x", "kind": "last", "input": "input"}, {"name": "z", "kind": "float", "op": "attention", "input": ["x", "x"]})"),
            "nodes[8].input: \"x\" is not a sequence; attention needs two");
    refused(behind(R"({"name": "x", "kind": "window", "input": "input", "size": 1, "dilation": 1, "stride": 2, "before": 0, "after": 0},
                       {"name": "z", "kind": "float", "op": "mul", "input": ["input", "x"]})"), "are not of one time base");
    SmallModel infinite = model, codes = model, golden = model;
    infinite.set<float>("scale", "F32", "[4]", {1, 2, INFINITY, 3});
    refused(infinite, "nodes[3].weight: element 2 is not finite");
    codes.set<std::int16_t>("golden.outputs", "I16", "[1,5,3]", std::vector<std::int16_t>(15));
    refused(codes, "golden.outputs: tensor \"golden.outputs\" is I16 [1, 5, 3], must be F32 [1, 5, 3]");
    golden.set<float>("golden.outputs", "F32", "[1,5,3]", std::vector<float>(15, NAN));
    refused(golden, "golden.outputs: element 0 is not finite");
    golden.set<float>("golden.outputs", "F32", "[1,5,3]", std::vector<float>(15, 1));
    golden.set<std::int32_t>("golden.lengths", "I32", "[1]", {4});
    refused(golden, "golden.outputs: element 12 is not 0 past its row's length");
}

}  // namespace

// A stream of every operation but attention; and a whole row with attention, beside a vector of codes.
std::vector<SmallModel> small_floats() {
    SmallModel frames = sample(R"({"name": "w", "kind": "gather", "input": "input", "index": "index"},
  {"name": "both", "kind": "window", "input": "input", "size": 2, "dilation": 1, "stride": 1, "before": 1, "after": 0},
  {"name": "soft", "kind": "float", "op": "softmax", "groups": 2, "input": "both"},
  {"name": "norm", "kind": "float", "op": "layer_norm", "epsilon": 0.5, "weight": "scale", "input": "soft"},
  {"name": "head", "kind": "float", "op": "linear", "weight": "weight", "input": "norm"},
  {"name": "sum", "kind": "float", "op": "add", "input": ["head", "head"]},
  {"name": "y", "kind": "float", "op": "tanh", "input": "sum"})",
                               "y", 2, 5, 8);
    frames.set<std::int32_t>("index", "I32", "[1]", {0});
    frames.set<float>("scale", "F32", "[4]", {1, 2, -1, 3});
    frames.set<float>("weight", "F32", "[3,4]", {1, 2, 3, 4, -1, 0, 0.5F, 2, 1, 1, 1, -7});
    SmallModel row = sample(R"({"name": "score", "kind": "float", "op": "linear", "weight": "weight", "input": "input"},
  {"name": "context", "kind": "float", "op": "attention", "input": ["score", "input"]},
  {"name": "mean", "kind": "mean", "input": "input"},
  {"name": "sum", "kind": "float", "op": "add", "input": ["context", "mean"]},
  {"name": "y", "kind": "float", "op": "mul", "input": ["sum", "context"]})",
                            "y", 2, 5, 8);
    row.set<float>("weight", "F32", "[1,2]", {2, -1});
    return {settled<float>(frames, "[1,5,3]", 15), settled<float>(row, "[1,2]", 2)};
}

void test_floats() {
    are_their_formulas();
    stand_in_graphs();
    have_no_codes();
    refuses();
}
