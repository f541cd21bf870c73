// Every kernel that this CPU has against loops that say only what numerics.md says, over shapes around the widths of
// vectors and with the codes that are furthest out.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "plan/model.h"

namespace {

using namespace rindle;
using Codes = std::vector<std::int16_t>;

std::mt19937 generator(1);

int between(int lo, int hi) { return std::uniform_int_distribution(lo, hi)(generator); }

int magnitude(int bits) { return (1 << (bits - 1)) - 1; }

// Codes of `bits` bits: all over the range, all at its ends, or mostly zero.
Codes random_codes(std::size_t size, int lo, int hi) {
    const int style = between(0, 2);
    Codes codes(size);
    for (auto& code : codes)
        code = static_cast<std::int16_t>(style == 0 ? between(lo, hi) : style == 1 ? (between(0, 1) ? lo : hi)
                                                                                   : between(0, 9) ? 0 : between(lo, hi));
    return codes;
}

// An array as a stream holds it: aligned, and zero behind its end.
template <class T>
Buffer padded(const std::vector<T>& values) {
    Buffer buffer((values.size() + kPadding) * sizeof(T));
    std::memcpy(buffer.data(), values.data(), values.size() * sizeof(T));
    return buffer;
}

// As the file holds them: little-endian bits, each row from a byte on.
std::vector<std::byte> file_of(const Codes& stored, int columns, int bits) {
    const std::size_t row_bytes = (static_cast<std::size_t>(columns) * static_cast<std::size_t>(bits) + 7) / 8;
    std::vector<std::byte> bytes(stored.size() / static_cast<std::size_t>(columns) * row_bytes);
    for (std::size_t i = 0; i < stored.size(); ++i)
        for (std::size_t bit = 0; bit < static_cast<std::size_t>(bits); ++bit) {
            const std::size_t at = i % static_cast<std::size_t>(columns) * static_cast<std::size_t>(bits) + bit;
            if (stored[i] >> bit & 1) bytes[i / static_cast<std::size_t>(columns) * row_bytes + at / 8] |= std::byte{1} << at % 8;
        }
    return bytes;
}

struct Packed {
    Matrix matrix;
    Codes codes;  // levels
    Buffer by_row, by_column;

    Packed(const Kernel& kernel, int rows, int columns, const Levels& levels, int code_bits, bool extreme) {
        const bool integer = levels.flip != 0;
        const int bits = levels.bits, w = integer ? magnitude(bits) : (1 << bits) - 1;
        Codes stored = random_codes(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns), integer ? -w : 0, w);
        if (extreme) stored.assign(stored.size(), static_cast<std::int16_t>(w));
        for (std::int16_t q : stored) codes.push_back(static_cast<std::int16_t>(integer ? q : levels.alpha * q + levels.beta));
        const auto file = file_of(stored, columns, bits);
        const Weights weights = {file.data(), file.size() / static_cast<std::size_t>(rows), levels};
        std::int64_t largest = 0;
        for (int r = 0; r < rows; ++r) {
            std::int64_t sum = 0;
            for (int k = 0; k < columns; ++k) sum += std::abs(at(r, k, columns));
            largest = std::max(largest, sum * magnitude(code_bits));
        }
        matrix = {rows, columns, width_of(levels), code_bits, largest >= std::int64_t{1} << 31, nullptr, nullptr};
        by_row = Buffer(kernel.row_bytes(matrix));
        by_column = Buffer(kernel.column_bytes(matrix));
        kernel.pack_rows(matrix, weights, by_row.data());
        kernel.pack_columns(matrix, weights, by_column.data());
        matrix.by_row = by_row.data();
        matrix.by_column = by_column.data();
    }

    int at(int r, int k, int columns) const {
        return codes[static_cast<std::size_t>(r) * static_cast<std::size_t>(columns) + static_cast<std::size_t>(k)];
    }

    bool product_is(const Buffer& accumulators, const std::int16_t* x) const {
        for (int r = 0; r < matrix.rows; ++r) {
            std::int64_t sum = 0;
            for (int k = 0; k < matrix.columns; ++k) sum += std::int64_t{at(r, k, matrix.columns)} * x[k];
            const std::int64_t got = matrix.wide ? accumulators.as<std::int64_t>()[r] : accumulators.as<std::int32_t>()[r];
            if (got != sum) return false;
        }
        return true;
    }
};

// Vectors side by side, with others between them; their accumulators are apart.
void products_of_vectors(const Kernel& kernel, const Packed& w) {
    const auto n = static_cast<std::size_t>(w.matrix.columns), rows = static_cast<std::size_t>(w.matrix.rows);
    const int most = magnitude(w.matrix.code_bits);
    const Buffer scratch(vectors_scratch_bytes(n));
    for (std::size_t count : {0, 1, 2, 3, 5, 12, 13, 26}) {
        const std::size_t stride = n + static_cast<std::size_t>(between(0, 3));
        const std::size_t bytes = (rows + kPadding) * (w.matrix.wide ? sizeof(std::int64_t) : sizeof(std::int32_t));
        const Buffer x = padded(random_codes(stride * (count + 1), -most, most));
        const Buffer accumulators(bytes * (count + 1));
        kernel.multiply_vectors(w.matrix, {x.as<std::int16_t>(), stride, accumulators.data(), bytes, count}, scratch.data());
        for (std::size_t i = 0; i < count; ++i) {
            Buffer one(bytes);
            std::memcpy(one.data(), accumulators.data() + i * bytes, bytes);
            CHECK(w.product_is(one, x.as<std::int16_t>() + i * stride));
        }
        for (std::size_t i = count * bytes; i < (count + 1) * bytes; ++i) CHECK(accumulators.data()[i] == std::byte{0});
    }
}

void products(const Kernel& kernel) {
    struct Shape {
        int rows, columns;
        Levels levels;
        int code_bits;
        bool extreme;
    };
    std::vector<Shape> shapes = {{3, 1030, integers(16), 16, true},  {5, 513, integers(8), 16, true},   {4, 600, integers(9), 16, true},
                                 {2, 516, integers(16), 8, true},    {300, 520, integers(8), 8, true},  {300, 520, integers(8), 16, true},
                                 {520, 300, integers(4), 16, false}, {2, 2050, integers(16), 16, false}};
    std::vector<Levels> sets(std::begin(kLevels), std::end(kLevels));
    for (int bits : {2, 4, 8, 9, 16}) sets.push_back(integers(bits));
    for (const Levels& levels : sets) shapes.push_back({65, 33000, levels, 8, false});  // more columns than byte sums allow
    for (int size : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 65})
        for (const Levels& levels : sets)
            for (int code_bits : {2, 8, 16}) shapes.push_back({size, between(1, 70), levels, code_bits, between(0, 3) == 0});

    for (const Shape& shape : shapes) {
        const Packed w(kernel, shape.rows, shape.columns, shape.levels, shape.code_bits, shape.extreme);
        const int most = magnitude(shape.code_bits);
        const auto n = static_cast<std::size_t>(shape.columns);
        const auto theta = random_codes(n, 0, most / 3);
        const Buffer held = padded(Codes(n)), limits = padded(theta), index = padded(std::vector<std::int32_t>(2 * n)),
                     delta = padded(Codes(2 * n)),
                     accumulators = padded(std::vector<std::int64_t>(static_cast<std::size_t>(shape.rows))),
                     scratch(scratch_bytes(n));
        Codes v = random_codes(n, -most, most), expected(n);
        bool listed = false;
        for (int frame = 0; frame < 12; ++frame) {
            if (frame % 4 == 0 && shape.extreme)
                for (auto& code : v) code = static_cast<std::int16_t>(frame ? -most : most);
            else if (frame > 0)  // a few change, from one end to the other
                for (auto& code : v)
                    if (between(0, 9) == 0) code = static_cast<std::int16_t>(between(0, 1) ? (code > 0 ? -most : most) : between(-most, most));
            int changed = 0;
            for (std::size_t i = 0; i < n; ++i)
                if (std::abs(v[i] - expected[i]) > theta[i]) expected[i] = v[i], ++changed;
            const Buffer now = padded(v);
            const Changes changes =
                kernel.hold(now.as<std::int16_t>(), limits.as<std::int16_t>(), held.as<std::int16_t>(),
                            index.as<std::int32_t>(), delta.as<std::int16_t>(), n, shape.code_bits);
            CHECK(changes.elements == changed);
            CHECK(std::memcmp(held.data(), expected.data(), n * sizeof(std::int16_t)) == 0);
            if (changes.entries == kNoList) {
                kernel.multiply(w.matrix, held.as<std::int16_t>(), accumulators.data(), scratch.data());
            } else {
                kernel.add_columns(w.matrix, index.as<std::int32_t>(), delta.as<std::int16_t>(), changes.entries,
                                   accumulators.data(), scratch.data());
                listed |= changes.entries > 0;
            }
            CHECK(w.product_is(accumulators, expected.data()));
        }
        CHECK(listed || n < 20);
        products_of_vectors(kernel, w);
    }
}

// floor(v / 2^s + 1/2) without shifting a negative number
std::int64_t rounded(std::int64_t v, int s) {
    if (s == 0) return v;
    const std::int64_t d = std::int64_t{1} << s, n = v + d / 2;
    return n / d - (n % d < 0);
}

std::int64_t clamped(std::int64_t v, Limits limits) { return std::min<std::int64_t>(std::max<std::int64_t>(v, limits.lo), limits.hi); }

Limits random_limits() {
    const int bits = between(2, 16);
    return bits == 16 ? Limits{-32768, 32767} : Limits{-magnitude(bits), magnitude(bits)};
}

void sums(const Kernel& kernel) {
    for (int round = 0; round < 400; ++round) {
        const auto n = static_cast<std::size_t>(between(1, 40));
        std::vector<Codes> in;
        for (int i = 0; i < 4; ++i) in.push_back(random_codes(n, -32768, 32767));
        const auto v = [&](int i, std::size_t k) { return std::int64_t{in[static_cast<std::size_t>(i)][k]}; };
        const bool wide = between(0, 1);
        for (int kind = 0; kind < 5; ++kind) {
            Codes out(n);
            Sum op = {{in[0].data(), in[1].data(), in[2].data(), in[3].data()}, out.data(), n, {0, 0}, 0, 0, random_limits(), wide};
            const bool products = kind >= 2;
            // As far as the width allows: a product has 30 bits already, and with R the sum stays below 31, or 52.
            op.one_bits = wide ? between(0, 20) : between(0, 12);
            op.shift = wide ? between(0, 44) : between(0, 28);
            op.left[0] = wide ? between(0, 14) : products ? 0 : between(0, 13);
            op.left[1] = wide ? between(0, 14) : products ? 0 : between(0, 13);
            if (!wide && products)  // operands of 14 bits
                for (auto& codes : in)
                    for (auto& code : codes) code = static_cast<std::int16_t>(code >> 2);
            const std::int64_t one = std::int64_t{1} << op.one_bits;
            std::size_t outside = 0;
            Codes expected(n);
            for (std::size_t k = 0; k < n; ++k) {
                const std::int64_t terms[5][2] = {{v(0, k), v(1, k)},
                                                  {v(0, k), -v(1, k)},
                                                  {v(0, k) * v(1, k), 0},
                                                  {v(0, k) * v(1, k), v(2, k) * v(3, k)},
                                                  {v(0, k) * v(1, k), (one - v(0, k)) * v(2, k)}};
                const std::int64_t sum =
                    rounded((terms[kind][0] << op.left[0]) + (terms[kind][1] << op.left[1]), op.shift);
                expected[k] = static_cast<std::int16_t>(clamped(sum, op.limits));
                outside += expected[k] != sum;
            }
            const auto run = kind == 0   ? kernel.add
                             : kind == 1 ? kernel.sub
                             : kind == 2 ? kernel.mul
                             : kind == 3 ? kernel.sum_of_products
                                         : kernel.lerp;
            CHECK(run(op) == outside);
            CHECK(out == expected);
        }

        Codes out(n);
        const int multiplier = wide ? between(0, (1 << 22) - 1) : between(0, 32767), shift = wide ? between(0, 40) : between(0, 30);
        const Requantize requantize = {in[0].data(), out.data(), n, multiplier, shift, random_limits(), wide};
        std::size_t outside = 0;
        Codes expected(n);
        for (std::size_t k = 0; k < n; ++k) {
            const std::int64_t y = rounded(v(0, k) * multiplier, shift);
            expected[k] = static_cast<std::int16_t>(clamped(y, requantize.limits));
            outside += expected[k] != y;
        }
        CHECK(kernel.requantize(requantize) == outside);
        CHECK(out == expected);

        const int a = between(-32768, 32767), b = between(a, 32767);
        kernel.clip(in[1].data(), {a, b}, out.data(), n);
        for (std::size_t k = 0; k < n; ++k) CHECK(out[k] == clamped(v(1, k), {a, b}));
    }
}

template <class T>
std::vector<double> shifted(const std::vector<T>& values, int s) {
    std::vector<double> result;
    for (T value : values) result.push_back(std::ldexp(static_cast<double>(value), -s));
    return result;
}

void finishes(const Kernel& kernel) {
    for (int round = 0; round < 300; ++round) {
        const auto n = static_cast<std::size_t>(between(1, 40));
        const int count = between(0, 4), shift = between(0, 40);
        const Limits limits = random_limits();
        std::vector<Buffer> buffers;
        std::vector<Product> products;
        const std::int64_t half = shift ? std::int64_t{1} << (shift - 1) : 0;
        std::vector<std::int64_t> total(n), bias(n);
        for (std::size_t r = 0; r < n; ++r) {
            total[r] = (std::int64_t{1} << 40) / 32768 * between(-32768, 32767);
            bias[r] = total[r] + half;
        }
        for (int p = 0; p < count; ++p) {
            const bool wide = between(0, 1);
            std::vector<std::int32_t> multipliers(n), narrow(n);
            std::vector<std::int64_t> accumulators(n);
            for (std::size_t r = 0; r < n; ++r) {
                multipliers[r] = between(0, (1 << (wide ? 12 : 19)) - 1);
                narrow[r] = between(INT32_MIN + 1, INT32_MAX);
                accumulators[r] = wide ? narrow[r] * std::int64_t{100} : narrow[r];
                total[r] += multipliers[r] * accumulators[r];
            }
            buffers.push_back(wide ? padded(accumulators) : padded(narrow));
            const void* data = buffers.back().data();
            buffers.push_back(padded(multipliers));
            const auto* multiplier = buffers.back().as<std::int32_t>();
            buffers.push_back(padded(shifted(multipliers, shift)));
            products.push_back({data, multiplier, buffers.back().as<double>(), wide});
        }
        const auto offset = shifted(bias, shift);
        Codes out(n), expected(n);
        std::size_t outside = 0;
        for (std::size_t r = 0; r < n; ++r) {
            const std::int64_t y = rounded(total[r], shift);
            expected[r] = static_cast<std::int16_t>(clamped(y, limits));
            outside += expected[r] != y;
        }
        CHECK(kernel.finish({products.data(), count, bias.data(), offset.data(), shift, limits, out.data(), n}) == outside);
        CHECK(out == expected);
    }
}

// All 65536 inputs.
void lookups(const Kernel& kernel) {
    Codes x(65536), y(65536);
    for (int i = 0; i < 65536; ++i) x[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(i - 32768);
    for (int round = 0; round < 120; ++round) {
        const int n = 1 << between(0, 8), symmetry = round % 3, degree = round / 3 % 2, frac = between(0, 17);
        std::vector<Segment> segments(static_cast<std::size_t>(n));
        Lookup table = {};
        table.limits = random_limits();
        for (Segment& segment : segments) {
            segment.base = static_cast<std::int16_t>(degree ? between(-32768, 32767) : between(table.limits.lo, table.limits.hi));
            segment.slope = static_cast<std::int16_t>(between(0, 3) ? between(-500, 500) : between(0, 1) ? -32768 : 32767);
        }
        Codes base, slope;
        for (const Segment& segment : segments) base.push_back(segment.base), slope.push_back(segment.slope);
        base.resize(256), slope.resize(256);
        table.segments = segments.data();
        table.base = base.data();
        table.slope = slope.data();
        table.x0 = symmetry ? 0 : between(-70000, 40000);
        table.p = between(0, 15);
        table.q = between(0, 30);
        table.last = (n << table.p) - 1;
        table.degree = degree;
        table.symmetry = symmetry;
        table.mirror = 1 << frac;
        kernel.lookup(table, x.data(), y.data(), x.size());
        bool equal = true;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const std::int64_t v = x[i];
            const std::int64_t u = clamped(symmetry ? std::abs(v) : v - table.x0, {0, table.last});
            const Segment segment = segments[static_cast<std::size_t>(u >> table.p)];
            const std::int64_t t = u % (std::int64_t{1} << table.p);
            std::int64_t expected = degree ? clamped(segment.base + rounded(segment.slope * t, table.q), table.limits) : segment.base;
            if (v < 0 && symmetry == 1) expected = clamped(-expected, table.limits);
            if (v < 0 && symmetry == 2) expected = clamped((std::int64_t{1} << frac) - expected, table.limits);
            equal &= y[i] == expected;
        }
        CHECK(equal);
    }
}

void encodes(const Kernel& kernel) {
    std::vector<float> x = {0, -0.0F, 0.5F, -0.5F, 0.49999997F, 1e30F, -1e30F, 3.4028235e38F, -3.4028235e38F, 1e-45F, 32767.5F, -32768.5F};
    for (int i = 0; i < 500; ++i) x.push_back(static_cast<float>(between(-70000, 70000)) / 2);
    for (float r : {1.0F, 0.3333F, 4096.0F, 3e38F, 1e-38F})
        for (int bits = 2; bits <= 16; ++bits) {
            const Limits limits = bits == 16 ? Limits{-32768, 32767} : Limits{-magnitude(bits), magnitude(bits)};
            Codes codes(x.size()), expected;
            std::size_t outside = 0;
            for (float v : x) {
                const double code = std::floor(static_cast<double>(v) * static_cast<double>(r) + 0.5);
                expected.push_back(static_cast<std::int16_t>(std::min<double>(std::max<double>(code, limits.lo), limits.hi)));
                outside += expected.back() != code;
            }
            CHECK(kernel.encode(x.data(), r, limits, codes.data(), x.size()) == outside);
            CHECK(codes == expected);
        }
}

}  // namespace

#ifdef RINDLE_X86
int wrong_code_avx2();
int wrong_code_avxvnni();
int wrong_code_avx512vnni();

void test_wrong_code(const char* kernel) {
    const std::string name = kernel;
    if (name == "avx2") CHECK(wrong_code_avx2() == 0);
    if (name == "avxvnni") CHECK(wrong_code_avxvnni() == 0);
    if (name == "avx512vnni") CHECK(wrong_code_avx512vnni() == 0);
}
#else
void test_wrong_code(const char*) {}
#endif

void test_kernels() {
    const KernelList list = available_kernels();
    for (std::size_t i = 0; i < list.count; ++i) {
        const Kernel& kernel = *list.kernels[i];
        const int before = failures;
        test_wrong_code(kernel.name);
        products(kernel);
        sums(kernel);
        finishes(kernel);
        lookups(kernel);
        encodes(kernel);
        if (failures != before) std::printf("in kernel %s\n", kernel.name);
    }
}
