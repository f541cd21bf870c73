// What makes a valid file safe to run: no sum ever leaves the range in which every engine is exact.
#include <cstdio>
#include <cstdlib>

#include "file/error.h"
#include "kernels/fixed.h"
#include "file/reader.h"

namespace rindle {
namespace {

std::string power_of_two(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "2^%.2f", std::log2(v));
    return text;
}

}  // namespace

Alignment align(const Op& op, const std::vector<Path>& paths, const Field& field) {
    const auto in = [&](std::size_t i) -> const Path& { return paths[static_cast<std::size_t>(op.in[i])]; };
    const auto frac = [&](std::size_t i) { return in(i).format.frac; };
    const auto most = [&](std::size_t i) { return static_cast<double>(in(i).range.magnitude()); };

    struct {
        int frac;
        double most;
    } term[2] = {};
    int terms = 2;
    switch (op.kind) {
        case OpKind::add:
        case OpKind::sub:
            term[0] = {frac(0), most(0)};
            term[1] = {frac(1), most(1)};
            break;
        case OpKind::mul:
            terms = 1;
            term[0] = {frac(0) + frac(1), most(0) * most(1)};
            break;
        case OpKind::sum_of_products:
            term[0] = {frac(0) + frac(1), most(0) * most(1)};
            term[1] = {frac(2) + frac(3), most(2) * most(3)};
            break;
        case OpKind::lerp:
            if (frac(0) < 0)
                field["in"].fail("\"" + in(0).name + "\" has the frac " + std::to_string(frac(0)) +
                                 "; lerp needs 0 or more, so that its one is an integer");
            term[0] = {frac(0) + frac(1), most(0) * most(1)};
            term[1] = {frac(0) + frac(2), (std::ldexp(1.0, frac(0)) + most(0)) * most(2)};
            break;
        default: std::abort();  // read_op calls this for no other
    }

    const int largest = terms == 1 ? term[0].frac : std::max(term[0].frac, term[1].frac);
    const int shift = largest - paths[static_cast<std::size_t>(op.out[0])].format.frac;  // (14)
    const int left = shift < 0 ? -shift : 0;
    Alignment alignment;
    alignment.shift = shift < 0 ? 0 : shift;
    alignment.worst = shift < 1 ? 0 : std::ldexp(1.0, shift - 1);
    for (int t = 0; t < terms; ++t) {
        alignment.left[static_cast<std::size_t>(t)] = largest - term[t].frac + left;
        alignment.worst += std::ldexp(term[t].most, largest - term[t].frac + left);
    }
    if (!(alignment.worst < kExact))  // (15)
        field.fail("can reach " + power_of_two(alignment.worst) +
                   ", must stay below 2^52; bring the fracs of its operands and result closer together");
    return alignment;
}

void check_affine(Op& op, const std::vector<Path>& paths, const Field& field) {
    constexpr std::int64_t kLimit = std::int64_t{1} << 52;
    std::vector<std::int64_t> worst(op.bias.size());  // saturated at kLimit
    const std::int64_t half = rounding<std::int64_t>(op.shift);
    for (std::size_t r = 0; r < worst.size(); ++r) {
        const std::int64_t bias = op.bias[r];
        worst[r] = bias > -kLimit && bias < kLimit ? sat<std::int64_t>(std::abs(bias) + half, 0, kLimit) : kLimit;
    }
    std::size_t t = 0;
    for (Term& term : op.terms) {
        const Field where = field["terms"].items(1, 64)[t++];
        std::size_t row = 0;
        for (int gate = 0; gate < term.first_gate; ++gate)
            row += static_cast<std::size_t>(paths[static_cast<std::size_t>(op.out[static_cast<std::size_t>(gate)])].size / op.pixels);
        const std::int64_t most = paths[static_cast<std::size_t>(term.code)].range.magnitude();
        for (std::int32_t r = 0; r < term.rows; ++r) {
            const std::int64_t m = term.multiplier[static_cast<std::size_t>(r)];
            if (m < 0 || m >= 1 << 22)
                where["multiplier"].fail("row " + std::to_string(r) + " is " + std::to_string(m) + ", must be 0..2^22-1");
            const std::int64_t a = term.sums[static_cast<std::size_t>(r)] * most;  // A[t,r], at most 2^50
            term.largest = std::max(term.largest, a);
            std::int64_t& v = worst[row + static_cast<std::size_t>(r)];
            v = m > 0 && a > (kLimit - v) / m ? kLimit : v + a * m;
        }
    }
    for (std::size_t r = 0; r < worst.size(); ++r)
        if (worst[r] >= kLimit)  // (8b)
            field.fail("row " + std::to_string(r) + " can reach 2^52 or more; convert with a smaller shift");
}

std::vector<std::int64_t> check_packed(std::span<const std::byte> bytes, std::int32_t rows, std::int32_t columns,
                                       const Levels& levels, const Field& field) {
    const Weights weights = {bytes.data(), bytes.size() / static_cast<std::size_t>(rows), levels};
    const std::int32_t least = level_of(levels, levels.lowest ^ levels.flip);
    const std::int64_t spare = static_cast<std::int64_t>(8 * weights.row_bytes) - std::int64_t{columns} * levels.bits;  // 0..7 bits
    std::vector<std::int64_t> sums;  // each at most 2^20 * 2^15
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < static_cast<std::size_t>(columns); ++k) {
            const std::int32_t level = level_at(weights, r, k);
            if (level < least)
                field.fail("row " + std::to_string(r) + ", column " + std::to_string(k) + " is " + std::to_string(level) +
                           ", which no weight may be");
            sum += std::abs(level);
        }
        const auto last = std::to_integer<unsigned>(bytes[(r + 1) * weights.row_bytes - 1]);
        if (last >> (8 - spare) != 0) field.fail("row " + std::to_string(r) + " has bits behind its last code");
        sums.push_back(sum);
    }
    return sums;
}

}  // namespace rindle
