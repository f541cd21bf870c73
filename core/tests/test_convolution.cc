// Convolutions (7c) against plain loops, on every kernel; and the rules about their geometry.
#include <algorithm>
#include <cmath>
#include <random>

#include "loaded.h"

namespace {

using i64 = std::int64_t;

std::mt19937 generator(5);

i64 between(i64 least, i64 most) { return least + static_cast<i64>(generator() % static_cast<std::uint32_t>(most - least + 1)); }

template <class T>
T one_of(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<i64>(values.size()) - 1)];
}

struct Term {
    i64 height = 1, width = 1, kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1}, padding[2] = {0, 0};
    i64 groups = 1, channels = 1;  // of the code, in all
    i64 first_gate = 0, gates = 1, bits = 8, code_bits = 8;
    std::vector<i64> weight, multiplier;  // [rows, columns], [rows]

    i64 size() const { return channels * height * width; }
    i64 columns() const { return channels / groups * kernel[0] * kernel[1]; }
    i64 rows(i64 per_gate) const { return gates * per_gate; }
};

struct Affine {
    i64 result[2] = {1, 1}, channels = 1, shift = 0;  // channels of each of the three gates
    std::vector<Term> terms;
    std::vector<i64> bias;
    i64 theta = 0;

    i64 pixels() const { return result[0] * result[1]; }
};

Affine random_affine() {
    Affine affine;
    for (i64& side : affine.result) side = between(1, 4);
    affine.channels = between(1, 3);
    double most = 1;
    for (int i = 0; i < 2; ++i) {
        Term term;
        term.gates = between(1, 3);
        term.first_gate = between(0, 3 - term.gates);
        do term.groups = between(1, 4);
        while (term.rows(affine.channels) % term.groups != 0);
        term.channels = term.groups * between(1, 2);
        for (int side = 0; side < 2; ++side) {
            term.kernel[side] = between(1, 3);
            term.stride[side] = between(1, 3);
            term.dilation[side] = between(1, 2);
            term.padding[side] = between(0, term.dilation[side] * (term.kernel[side] - 1));
            const i64 least = (affine.result[side] - 1) * term.stride[side] - term.padding[side] + 1;
            (side == 0 ? term.height : term.width) = std::max<i64>(1, least) + between(0, 2);
        }
        term.bits = one_of({2, 3, 4, 7, 8, 9, 12, 16});
        term.code_bits = one_of({4, 8, 11, 16});
        const i64 limit = (i64{1} << (term.bits - 1)) - 1;
        for (i64 k = term.rows(affine.channels) * term.columns(); k > 0; --k)
            term.weight.push_back(between(0, 3) ? between(-limit, limit) : one_of({-limit, limit}));
        for (i64 r = term.rows(affine.channels); r > 0; --r) term.multiplier.push_back(between(0, 1 << between(1, 15)));
        most = std::max(most, std::ldexp(static_cast<double>(term.columns()), static_cast<int>(term.bits + term.code_bits + 12)));
        affine.terms.push_back(term);
    }
    affine.theta = between(0, std::min<i64>(40, (1 << (affine.terms[1].code_bits - 1)) - 2));
    affine.shift = std::clamp<i64>(std::ilogb(most) - 17 + between(0, 5), 0, 40);
    for (i64 r = 3 * affine.channels; r > 0; --r) affine.bias.push_back(between(-1000, 1000) << std::min<i64>(affine.shift, 20));
    return affine;
}

// ---- As a file: "a" and "b" gather the images, "conv" reads both; its gates y, z, w are added up.

std::string pair(const i64 (&numbers)[2]) { return "[" + std::to_string(numbers[0]) + ", " + std::to_string(numbers[1]) + "]"; }

std::vector<std::uint8_t> pack(const std::vector<i64>& codes, i64 rows, i64 bits) {
    const i64 columns = static_cast<i64>(codes.size()) / rows, row_bytes = (columns * bits + 7) / 8;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * row_bytes));
    for (i64 r = 0; r < rows; ++r)
        for (i64 k = 0; k < columns; ++k)
            for (i64 bit = 0; bit < bits; ++bit)
                if (codes[static_cast<std::size_t>(r * columns + k)] >> bit & 1)
                    bytes[static_cast<std::size_t>(r * row_bytes + (k * bits + bit) / 8)] |=
                        static_cast<std::uint8_t>(1 << (k * bits + bit) % 8);
    return bytes;
}

SmallModel document(const Affine& affine) {
    const char* const gates[] = {"y", "z", "w"};
    const std::string size = std::to_string(affine.channels * affine.pixels());
    std::string terms, sizes[2], bits[2];
    const i64 features = affine.terms[0].size() + affine.terms[1].size();
    for (int i = 0; i < 2; ++i) {
        const Term& term = affine.terms[static_cast<std::size_t>(i)];
        const i64 image[2] = {term.height, term.width};
        sizes[i] = std::to_string(term.size());
        bits[i] = std::to_string(term.code_bits);
        std::string run;
        for (i64 g = term.first_gate; g < term.first_gate + term.gates; ++g) run += (run.empty() ? "\"" : ", \"") + std::string(gates[g]) + "\"";
        const std::string name = "term" + std::to_string(i);
        terms += (i ? ", {\"in\": \"" : "{\"in\": \"") + std::string(i ? "r" : "q") + "\", \"gates\": [" + run + "], \"weight\": \"" +
                 name + ".weight\", \"bits\": " + std::to_string(term.bits) + ", \"frac\": 0, \"multiplier\": \"" + name +
                 ".m\", \"conv\": {\"image\": " + pair(image) + ", \"kernel\": " + pair(term.kernel) + ", \"stride\": " +
                 pair(term.stride) + ", \"dilation\": " + pair(term.dilation) + ", \"padding\": " + pair(term.padding) +
                 ", \"result\": " + pair(affine.result) + ", \"groups\": " + std::to_string(term.groups) + "}}";
    }
    const std::string gate = R"({"size": )" + size + R"(, "bits": 16, "frac": 0})";
    SmallModel model = sample(R"({"name": "a", "kind": "gather", "input": "input", "index": "a"},
  {"name": "b", "kind": "gather", "input": "input", "index": "b"},
  {"name": "conv", "kind": "program", "input": ["a", "b"], "program": {"cell": "test", "input": ["x1", "x2"], "states": [],
   "output": "sum", "paths": {"x1": {"size": )" + sizes[0] + R"(, "bits": 16, "frac": 0}, "x2": {"size": )" + sizes[1] +
                                  R"(, "bits": 16, "frac": 0}, "y": )" + gate + ", \"z\": " + gate + ", \"w\": " + gate +
                                  ", \"part\": " + gate + ", \"sum\": " + gate + R"(},
   "codes": {"q": {"size": )" + sizes[0] + ", \"bits\": " + bits[0] + R"(, "frac": 0}, "r": {"size": )" + sizes[1] +
                                  ", \"bits\": " + bits[1] + ", \"frac\": 0, \"theta\": " + std::to_string(affine.theta) + R"(}}, "vectors": {},
   "ops": [{"op": "requantize", "out": "q", "in": "x1", "multiplier": 1, "shift": 0},
           {"op": "requantize", "out": "r", "in": "x2", "multiplier": 1, "shift": 0},
           {"op": "affine", "out": ["y", "z", "w"], "bias": "bias", "shift": )" + std::to_string(affine.shift) + ", \"terms\": [" + terms + R"(]},
           {"op": "add", "out": "part", "in": ["y", "z"]}, {"op": "add", "out": "sum", "in": ["part", "w"]}]}})",
                              "conv", static_cast<std::size_t>(features), 3);
    std::vector<std::int32_t> indices[2];  // the images stand in the input one behind the other, backwards
    for (i64 i = 0; i < features; ++i) {
        auto& index = indices[features - 1 - i < affine.terms[0].size() ? 0 : 1];
        index.insert(index.begin(), static_cast<std::int32_t>(i));
    }
    for (int i = 0; i < 2; ++i) {
        const Term& term = affine.terms[static_cast<std::size_t>(i)];
        const i64 rows = term.rows(affine.channels);
        const std::string name = "term" + std::to_string(i);
        const auto weight = pack(term.weight, rows, term.bits);
        model.set<std::int32_t>(i ? "b" : "a", "I32", "[" + sizes[i] + "]", indices[i]);
        model.set<std::uint8_t>(name + ".weight", "U8",
                                "[" + std::to_string(rows) + "," + std::to_string(static_cast<i64>(weight.size()) / rows) + "]", weight);
        model.set<std::int32_t>(name + ".m", "I32", "[" + std::to_string(rows) + "]",
                                std::vector<std::int32_t>(term.multiplier.begin(), term.multiplier.end()));
    }
    model.set<i64>("bias", "I64", "[" + std::to_string(3 * affine.channels) + "]", affine.bias);
    const std::string shape = "[1,3," + size + "]";
    return settled(model, shape, static_cast<std::size_t>(3 * affine.channels * affine.pixels()));
}

// ---- The oracle: one number after the other, as the equations stand

i64 limited(i64 v, i64 lo, i64 hi, i64& outside) {
    outside += v < lo || v > hi;
    return std::clamp(v, lo, hi);
}

// (7c), one element
i64 accumulate(const Affine& affine, const Term& term, const std::vector<i64>& x, i64 r, i64 i, i64 j) {
    const i64 in_group = term.channels / term.groups, first = r * term.groups / term.rows(affine.channels) * in_group;
    i64 acc = 0;
    for (i64 c = 0; c < in_group; ++c)
        for (i64 a = 0; a < term.kernel[0]; ++a)
            for (i64 b = 0; b < term.kernel[1]; ++b) {
                const i64 y = i * term.stride[0] + a * term.dilation[0] - term.padding[0];
                const i64 z = j * term.stride[1] + b * term.dilation[1] - term.padding[1];
                if (y < 0 || y >= term.height || z < 0 || z >= term.width) continue;
                acc += term.weight[static_cast<std::size_t>(((r * in_group + c) * term.kernel[0] + a) * term.kernel[1] + b)] *
                       x[static_cast<std::size_t>(((first + c) * term.height + y) * term.width + z)];
            }
    return acc;
}

struct Oracle {
    const Affine& affine;
    std::vector<i64> held = std::vector<i64>(static_cast<std::size_t>(affine.terms[1].size()));
    std::vector<std::uint64_t> saturated = std::vector<std::uint64_t>(6);
    std::uint64_t changed = 0;

    std::vector<i64> frame(const std::int16_t* features) {
        const auto total = static_cast<std::size_t>(affine.terms[0].size() + affine.terms[1].size());
        std::vector<i64> codes[2];
        i64 outside[6] = {};
        for (std::size_t k = 0; k < total; ++k) {
            const std::size_t which = k < static_cast<std::size_t>(affine.terms[0].size()) ? 0 : 1;
            const i64 limit = (i64{1} << (affine.terms[which].code_bits - 1)) - 1;
            codes[which].push_back(limited(features[total - 1 - k], -limit, limit, outside[1 + which]));
        }
        for (std::size_t k = 0; k < held.size(); ++k)
            if (std::abs(codes[1][k] - held[k]) > affine.theta) {
                held[k] = codes[1][k];
                ++changed;
            }
        const i64 pixels = affine.pixels(), rows = 3 * affine.channels;
        std::vector<i64> y(static_cast<std::size_t>(rows * pixels));
        for (i64 r = 0; r < rows; ++r)
            for (i64 p = 0; p < pixels; ++p) {
                i64 v = affine.bias[static_cast<std::size_t>(r)] + (affine.shift ? i64{1} << (affine.shift - 1) : 0);
                for (const Term& term : affine.terms) {
                    const i64 row = r - term.first_gate * affine.channels;
                    if (row < 0 || row >= term.rows(affine.channels)) continue;
                    v += term.multiplier[static_cast<std::size_t>(row)] *
                         accumulate(affine, term, &term == &affine.terms[0] ? codes[0] : held, row, p / affine.result[1],
                                    p % affine.result[1]);
                }
                y[static_cast<std::size_t>(r * pixels + p)] = limited(v >> affine.shift, -32768, 32767, outside[3]);
            }
        const auto size = static_cast<std::size_t>(affine.channels * pixels);
        std::vector<i64> sum(size);
        for (std::size_t k = 0; k < size; ++k) {
            const i64 part = limited(y[k] + y[size + k], -32768, 32767, outside[4]);
            sum[k] = limited(part + y[2 * size + k], -32768, 32767, outside[5]);
        }
        for (std::size_t k = 0; k < 6; ++k) saturated[k] += static_cast<std::uint64_t>(outside[k]);
        return sum;
    }
};

void equals_loops() {
    bool wide = false, straddles = false, limits = false;
    for (int round = 0; round < 150; ++round) {
        const Affine affine = random_affine();
        const SmallModel model = document(affine);
        for (const Term& term : affine.terms) {
            wide |= term.bits == 16 && term.code_bits == 16 && term.columns() > 2;
            straddles |= term.gates > 1 && term.groups > 1 && affine.channels % (term.rows(affine.channels) / term.groups) != 0;
        }
        const std::size_t features = static_cast<std::size_t>(affine.terms[0].size() + affine.terms[1].size()), frames = 4;
        const std::vector<std::int32_t> lengths = {4, 2};
        std::vector<std::int16_t> x;
        for (std::size_t i = 0; i < 2 * frames * features; ++i)
            x.push_back(static_cast<std::int16_t>(between(0, 1) ? between(-32768, 32767) : between(-60, 60)));
        std::vector<i64> wanted;
        std::vector<std::uint64_t> saturated(6);
        std::uint64_t changed = 0;
        for (std::size_t row = 0; row < 2; ++row) {
            Oracle oracle{affine};
            for (std::size_t t = 0; t < frames; ++t) {
                auto y = static_cast<std::int32_t>(t) < lengths[row]
                             ? oracle.frame(x.data() + (row * frames + t) * features)
                             : std::vector<i64>(static_cast<std::size_t>(affine.channels * affine.pixels()));
                wanted.insert(wanted.end(), y.begin(), y.end());
            }
            for (std::size_t k = 0; k < 6; ++k) saturated[k] += oracle.saturated[k];
            changed += oracle.changed;
        }
        limits |= saturated[3] > 0;
        for (std::size_t k = 0; const char* kernel = rindle_available_kernel(k); ++k) {
            Loaded loaded(model, kernel);
            const auto y = loaded.run(x, 2, lengths);
            CHECK(std::equal(y.begin(), y.end(), wanted.begin(), wanted.end()));
            std::uint64_t seen = 0, found = 0;
            std::vector<std::uint64_t> counted(rindle_saturation_count(loaded.model.get()));
            CHECK(rindle_counters(loaded.stream.get(), &seen, &found, counted.data()) == RINDLE_OK);
            CHECK(seen == 6 && found == changed && counted == saturated);
            std::vector<std::int16_t> one(rindle_output_size(loaded.model.get()));
            for (std::size_t t = 0; t < frames; ++t) {
                CHECK(rindle_step_codes(loaded.stream.get(), x.data() + t * features, features, one.data(), one.size()) == RINDLE_OK);
                CHECK(std::equal(one.begin(), one.end(), wanted.begin() + static_cast<std::ptrdiff_t>(t * one.size())));
            }
        }
    }
    CHECK(wide && straddles && limits);  // or the loop has not tried what it is for
}

const Rule kRules[] = {
    {"\"version\": 3", "\"version\": 2", "nodes[0].kind: must be one of"},
    {"\"padding\": [1, 2], ", "", "conv: key \"padding\" is missing"},
    {"\"padding\": [1, 2]", "\"padding\": [1, 2], \"x\": 1", "conv: unknown key \"x\""},
    {"\"padding\": [1, 2]", "\"padding\": [3, 2]", "terms[0].conv.padding: height: 3 is more than dilation * (kernel - 1) = 2"},
    {"\"padding\": [1, 2]", "\"padding\": [1, 3]", "terms[0].conv.padding: width: 3 is more than"},
    {"\"padding\": [1, 2]", "\"padding\": [1, -1]", "conv.padding[1]: is -1"},
    {"\"padding\": [1, 2]", "\"padding\": [1]", "conv.padding: has 1 items, must have 2"},
    {"\"padding\": [1, 2]", "\"padding\": 1", "conv.padding: must be an array"},
    {"\"stride\": [1, 2]", "\"stride\": [4, 2]", "terms[0].conv.result: height: a result of 2 begins behind the image of 3"},
    {"\"stride\": [1, 2]", "\"stride\": [1, 7]", "terms[0].conv.result: width: a result of 2 begins behind"},
    {"\"stride\": [1, 2]", "\"stride\": [0, 2]", "conv.stride[0]: is 0"},
    {"\"stride\": [1, 2]", "\"stride\": [1048577, 2]", "conv.stride[0]: is 1048577"},
    {"\"dilation\": [2, 1]", "\"dilation\": [0, 1]", "conv.dilation[0]: is 0"},
    {"\"kernel\": [2, 3]", "\"kernel\": [2, 0]", "conv.kernel[1]: is 0"},
    {"\"kernel\": [2, 3]", "\"kernel\": [2, 4]", "terms[0].weight: tensor \"term0.weight\" is U8 [2, 6], must be U8 [2, 8]"},
    {"\"kernel\": [2, 3]", "\"kernel\": [1048576, 1048576]", "terms[0].conv.kernel: makes more than 2^20 columns"},
    {"\"kernel\": [2, 3]", "\"kernel\": [2, 1048576]", "terms[0].conv.kernel: makes more than 2^20 columns"},
    {"\"image\": [3, 4]", "\"image\": [3, 5]", "terms[0].conv.image: has 15 elements, of which the 24 of \"q\" must be a multiple"},
    {"\"image\": [3, 4]", "\"image\": [1048576, 1048576]", "terms[0].conv.image: has 1099511627776 elements"},
    {"\"result\": [2, 2], \"groups\": 2", "\"result\": [2, 3], \"groups\": 2", "out[0]: \"y\" has the size 4, must have a multiple of the 6"},
    {"\"result\": [2, 2], \"groups\": 1", "\"result\": [1, 2], \"groups\": 1", "terms[1].conv.result: must be that of"},
    {"\"groups\": 2", "\"groups\": 0", "conv.groups: is 0"},
    {"\"groups\": 2", "\"groups\": 3", "conv.groups: is 3, must divide the 2 channels of \"q\" and the 2 of its gates"},
    {"\"input\": [\"x1\", \"x2\"]", "\"input\": [\"x1\", \"x1\"]", "program.input[1]: path \"x1\""},
    {"\"input\": [\"x1\", \"x2\"]", "\"input\": [\"x1\"]", "program.input: has 1 items, must have 2"},
    {"\"input\": [\"x1\", \"x2\"]", "\"input\": \"x1\"", "program.input: must be an array"},
    {"\"input\": [\"x1\", \"x2\"]", "\"input\": [\"x1\", \"y\"]", "program.input[1]: path \"y\" must have the size (2)"},
    {"\"input\": [\"a\", \"b\"]", "\"input\": [\"a\"]", "nodes[2].input: has 1 items, must have 2 to 64"},
    {"\"input\": [\"a\", \"b\"]", "\"input\": \"a\"", "program.input: must be a string"},
    {"\"input\": [\"a\", \"b\"]", "\"input\": [\"a\", \"conv\"]", "nodes[2].input[1]: \"conv\" is not"},
    {"\"input\": [\"a\", \"b\"]", "\"input\": [\"b\", \"a\"]", "program.input[0]: path \"x1\" must have the size (2)"},
};

void refuses() {
    const SmallModel model = small_convolution();
    refuses_each(model, kRules);
    SmallModel mixed = model;  // one term a convolution, the other a matrix
    const std::size_t begin = mixed.document.find(", \"conv\"", mixed.document.find("\"r\", \"gates\""));
    const std::size_t end = mixed.document.find("}", begin);
    mixed.document.erase(begin, end + 1 - begin);
    refused(mixed, "terms[1]: of an affine all terms have a \"conv\", or none has");
    SmallModel bias = model, worst = model;
    bias.set<i64>("bias", "I64", "[12]", std::vector<i64>(12));
    refused(bias, "bias: tensor \"bias\" is I64 [12], must be I64 [3]");
    // (8b), per channel over the whole kernel window: A = 6 * 127 * 127, M = 1000, and the term on "r" has 3 * 127, M = 3
    const i64 limit = i64{1} << 52, products = 6 * 127 * 127 * i64{1000}, other = 3 * 127 * i64{3};
    worst.set<i64>("bias", "I64", "[3]", {0, limit - products - other - 8 - 1, 0});
    CHECK((Loaded(worst), true));
    worst.set<i64>("bias", "I64", "[3]", {0, limit - products - other - 8, 0});
    refused(worst, "ops[2]: row 1 can reach 2^52");

    // The additions of version 3 are errors in older versions, one by one.
    SmallModel old = model;
    old.document = replaced(old.document, "\"version\": 3", "\"version\": 2");
    for (const char* name : {"a", "b"})
        old.document = replaced(old.document, "{\"name\": \"" + std::string(name) + "\", \"kind\": \"gather\", \"input\": \"input\", \"index\": \"" + name + "\"}",
                                "{\"name\": \"" + std::string(name) + "\", \"kind\": \"first\", \"input\": \"input\"}");
    refused(old, "nodes[2].input: must be a string");
    old.document = replaced(old.document, "\"input\": [\"a\", \"b\"]", "\"input\": \"a\"");
    refused(old, "program.input: must be a string");
}

// A convolution in a program that would be a valid file of version 2 but for it.
void older_versions() {
    SmallModel model;
    const std::string term = R"("multiplier": "cell.m"})";
    model.document = replaced(model.document, term, R"("multiplier": "cell.m", "conv": {"image": [1, 1], "kernel": [1, 1],
     "stride": [1, 1], "dilation": [1, 1], "padding": [0, 0], "result": [1, 1], "groups": 1}})");
    refused(model, "terms[0]: unknown key \"conv\"");
    model.document = replaced(model.document, "\"version\": 1", "\"version\": 2");
    refused(model, "terms[0]: unknown key \"conv\"");
    model.document = replaced(model.document, "\"version\": 2", "\"version\": 3");
    CHECK((Loaded(model), true));
    // one pixel: the matrix itself
    SmallModel dense;
    const std::vector<std::int16_t> x = {3, -2, 4, -2, 500, 700, -900, 8};
    CHECK(Loaded(model).run(x, 1) == Loaded(dense).run(x, 1));
}

}  // namespace

SmallModel small_convolution() {
    Affine affine;
    affine.result[0] = affine.result[1] = 2;
    affine.shift = 4;  // R = 8
    affine.theta = 2;
    Term x, h;
    x.height = 3, x.width = 4, x.channels = 2, x.groups = 2, x.gates = 2, x.code_bits = 8;
    x.kernel[0] = 2, x.kernel[1] = 3, x.stride[1] = 2, x.dilation[0] = 2, x.padding[0] = 1, x.padding[1] = 2;
    x.weight.assign(12, 127);
    x.multiplier = {7, 1000};
    h.height = 2, h.width = 1, h.gates = 2, h.first_gate = 1, h.kernel[1] = 2, h.padding[1] = 1;
    h.bits = 3;
    h.weight = {3, 0, -2, 1};
    h.multiplier = {3, 1};
    affine.terms = {x, h};
    affine.bias = {5, -100, 2000};
    return document(affine);
}

void test_convolution() {
    equals_loops();
    refuses();
    older_versions();
}
