// 512-bit vectors for kernels_x86.h: AVX-512 F, BW, DQ, VL and VNNI. Only for a translation unit compiled for them; all is in
// an anonymous namespace, so that nothing of it can be linked into another.
#pragma once

#include <immintrin.h>

#include "kernels/kernels.h"

namespace rindle {
namespace {

struct Vector {
    static constexpr const char* kName = "avx512vnni";
    static constexpr std::size_t kBytes = 64;
    static constexpr const Gates* kGates = &kAvx512Gates;
    static constexpr int kCodeOffset = 128;    // codes are stored as unsigned code + 128 for dot8
    static constexpr int kWeightOffset = 128;  // and so are the weights of a column, for dot8_column
    static constexpr int kMostChanges = 20;    // of 32 columns: where more changed, a product anew is faster
    static constexpr std::size_t kAtOnce = 3;  // vectors that a tile's weights meet at once: 24 accumulators of 32 registers
    using I = __m512i;
    using D = __m512d;
    using Codes = __m512i;  // four bytes of codes or changes, in every 32-bit lane

    // n of the 16 lanes of 32 bits
    static __mmask16 lanes(std::size_t n) { return static_cast<__mmask16>((1U << n) - 1); }
    static __mmask8 half(std::size_t n) { return static_cast<__mmask8>((1U << n) - 1); }

    static I load(const void* p) { return _mm512_loadu_si512(p); }
    static void store(void* p, I v) { _mm512_storeu_si512(p, v); }
    static I zero() { return _mm512_setzero_si512(); }
    static I set8(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
    static I set16(int v) { return _mm512_set1_epi16(static_cast<short>(v)); }
    static I set32(int v) { return _mm512_set1_epi32(v); }
    static I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
    static I bit_xor(I a, I b) { return _mm512_xor_si512(a, b); }

    // ---- 16-bit lanes
    static __mmask32 words(std::size_t n) { return static_cast<__mmask32>(n >= 32 ? ~0U : (1U << n) - 1); }
    static I load16(const std::int16_t* p, std::size_t n) {
        return n == 32 ? load(p) : _mm512_maskz_loadu_epi16(words(n), p);
    }
    static void store16(std::int16_t* p, I v, std::size_t n) {
        if (n == 32) return store(p, v);
        _mm512_mask_storeu_epi16(p, words(n), v);
    }
    static I min16(I a, I b) { return _mm512_min_epi16(a, b); }
    static I max16(I a, I b) { return _mm512_max_epi16(a, b); }
    static I add16(I a, I b) { return _mm512_add_epi16(a, b); }
    static I left16(I v, int count) { return _mm512_sll_epi16(v, _mm_cvtsi32_si128(count)); }
    static I right16(I v, int count) { return _mm512_sra_epi16(v, _mm_cvtsi32_si128(count)); }
    // The low bytes of 32 lanes
    static void store_bytes(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi16_epi8(v)); }

    // ---- 32-bit lanes
    static __m256i half_words(const std::int16_t* p, std::size_t n) {
        return n == 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)) : _mm256_maskz_loadu_epi16(lanes(n), p);
    }
    static I widen(const std::int16_t* p, std::size_t n) { return _mm512_cvtepi16_epi32(half_words(p, n)); }
    static I widen_unsigned(const std::int16_t* p, std::size_t n) { return _mm512_cvtepu16_epi32(half_words(p, n)); }
    static void narrow(std::int16_t* p, I v, std::size_t n) {
        const __m256i low = _mm512_cvtepi32_epi16(v);
        if (n == 16) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), low);
        _mm256_mask_storeu_epi16(p, lanes(n), low);
    }
    static I load32(const std::int32_t* p, std::size_t n) {
        return n == 16 ? load(p) : _mm512_maskz_loadu_epi32(lanes(n), p);
    }
    static I add32(I a, I b) { return _mm512_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm512_sub_epi32(a, b); }
    static I min32(I a, I b) { return _mm512_min_epi32(a, b); }
    static I max32(I a, I b) { return _mm512_max_epi32(a, b); }
    static I left32(I v, int count) { return _mm512_sll_epi32(v, _mm_cvtsi32_si128(count)); }
    static I right32(I v, int count) { return _mm512_sra_epi32(v, _mm_cvtsi32_si128(count)); }
    static I multiply_pairs(I a, I b) { return _mm512_madd_epi16(a, b); }  // a0 b0 + a1 b1 of 16-bit pairs
    static I gather32(const void* base, I index) { return _mm512_i32gather_epi32(index, base, 4); }
    static int differing(I a, I b, std::size_t n) {
        return __builtin_popcount(static_cast<unsigned>(_mm512_cmpneq_epi32_mask(a, b) & lanes(n)));
    }

    // ---- doubles: 8 lanes, half of the 32-bit ones
    static D set(double v) { return _mm512_set1_pd(v); }
    static D lower(I v) { return _mm512_cvtepi32_pd(_mm512_castsi512_si256(v)); }
    static D upper(I v) { return _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(v, 1)); }
    static I floors(D low, D high) {
        constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvt_roundpd_epi32(low, kDown)),
                                  _mm512_cvt_roundpd_epi32(high, kDown), 1);
    }
    static D load_double(const double* p, std::size_t n) {
        return n == 8 ? _mm512_loadu_pd(p) : _mm512_maskz_loadu_pd(half(n), p);
    }
    static D load_float(const float* p, std::size_t n) {
        return _mm512_cvtps_pd(n == 8 ? _mm256_loadu_ps(p) : _mm256_maskz_loadu_ps(half(n), p));
    }
    static D load_wide(const std::int64_t* p, std::size_t n) {
        return _mm512_cvtepi64_pd(_mm512_maskz_loadu_epi64(half(n), p));
    }
    static D multiply(D a, D b) { return _mm512_mul_pd(a, b); }
    static D add(D a, D b) { return _mm512_add_pd(a, b); }
    static D multiply_add(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
    static D min(D a, D b) { return _mm512_min_pd(a, b); }
    static D max(D a, D b) { return _mm512_max_pd(a, b); }
    static int differing(D a, D b, std::size_t n) {
        return __builtin_popcount(static_cast<unsigned>(_mm512_cmp_pd_mask(a, b, _CMP_NEQ_OQ) & half(n)));
    }

    // acc[lane] += 256 high + low, in 64 bits
    static void add_wide(std::int64_t* acc, I high, I low) {
        for (int i = 0; i < 2; ++i) {
            const __m512i h = _mm512_cvtepi32_epi64(i ? _mm512_extracti64x4_epi64(high, 1) : _mm512_castsi512_si256(high));
            const __m512i l = _mm512_cvtepi32_epi64(i ? _mm512_extracti64x4_epi64(low, 1) : _mm512_castsi512_si256(low));
            store(acc + 8 * i, _mm512_add_epi64(load(acc + 8 * i), _mm512_add_epi64(_mm512_slli_epi64(h, 8), l)));
        }
    }

    // ---- dot products of four bytes, or two words, per 32-bit lane
    static Codes broadcast(const void* p) {
        int v;
        __builtin_memcpy(&v, p, sizeof v);
        return _mm512_set1_epi32(v);
    }
    // In assembly, because gcc 12 copies and spills arrays of accumulators around the intrinsics.
    static I dot_unsigned(I acc, I u, I s) {
#if defined(__clang__)
        return _mm512_dpbusd_epi32(acc, u, s);
#else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));
        return acc;
#endif
    }
    static I dot8(I acc, I weights, Codes x) { return dot_unsigned(acc, x, weights); }
    static I dot8_column(I acc, I weights, Codes delta) { return dot_unsigned(acc, weights, delta); }
    // Two weights of 4 bits, unsigned, in every byte: the sums over the low ones, and over the whole bytes, of which the high
    // ones follow.
    static void dot4(I& low, I& other, I bytes, Codes x) {
        low = dot_unsigned(low, bit_and(bytes, set8(0x0F)), x);
        other = dot_unsigned(other, bytes, x);
    }
    static I high_of(I low, I other) { return _mm512_srai_epi32(sub32(other, low), 4); }
    static I dot16(I acc, I weights, Codes x) {
#if defined(__clang__)
        return _mm512_dpwssd_epi32(acc, weights, x);
#else
        __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(weights), "v"(x));
        return acc;
#endif
    }

    static I unpack_low8(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
    static I unpack_high8(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
    static I unpack_low16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
    static I unpack_high16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
    static std::int64_t sum32(I v) { return _mm512_reduce_add_epi32(v); }

    // ---- changes of a held path
    // |v - held| exceeds theta, of n 16-bit lanes; the difference is an unsigned one
    static __mmask32 changes(I v, I held, I theta, std::size_t n) {
        const I distance = _mm512_sub_epi16(max16(v, held), min16(v, held));
        return _mm512_cmpgt_epu16_mask(distance, theta) & words(n);
    }
    static int count_changes(const std::int16_t* v, const std::int16_t* held, const std::int16_t* theta, std::size_t n) {
        return __builtin_popcount(changes(load16(v, n), load16(held, n), load16(theta, n), n));
    }
    static void replace_changes(const std::int16_t* v, std::int16_t* held, const std::int16_t* theta, std::size_t n) {
        const I now = load16(v, n);
        _mm512_mask_storeu_epi16(held, changes(now, load16(held, n), load16(theta, n), n), now);
    }
    // Lanes of n whose |d| exceeds theta, as bits.
    static unsigned exceeds(I d, I theta, std::size_t n) {
        return _mm512_mask_cmpgt_epi32_mask(lanes(n), _mm512_abs_epi32(d), theta);
    }
    // Appends the lanes' numbers, counted from first, and their d. Writes 16 places.
    static void list(std::int32_t* index, std::int16_t* delta, int first, I d, unsigned which) {
        const auto mask = static_cast<__mmask16>(which);
        const __m512i number = _mm512_add_epi32(_mm512_set1_epi32(first),
                                                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        store(index, _mm512_maskz_compress_epi32(mask, number));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(delta), _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, d)));
    }

    // (6) of a product with s = 15, in 16-bit lanes: (a b + 2^14) >> 15, which is the instruction itself
    static I round_high16(I a, I b) { return _mm512_mulhrs_epi16(a, b); }

    // (17)-(19) for 32 inputs at a time, where the table fits registers and 16 bits: (slope t + 2^(q-1)) >> q is
    // (slope t' + 2^14) >> 15 with t' = t 2^(15-q). False where it does not.
    static bool lookup(const Lookup& table, const std::int16_t* in, std::int16_t* out, std::size_t size) {
        const int segments = (table.last + 1) >> table.p;
        if (!table.symmetry || !table.degree || segments > 128 || table.q > 15 || table.p > table.q || table.mirror > 32768)
            return false;
        const __m512i base[4] = {load(table.base), load(table.base + 32), load(table.base + 64), load(table.base + 96)};
        const __m512i slope[4] = {load(table.slope), load(table.slope + 32), load(table.slope + 64), load(table.slope + 96)};
        const auto pick = [](const __m512i (&values)[4], __m512i k, __mmask32 second) {
            return _mm512_mask_blend_epi16(second, _mm512_permutex2var_epi16(values[0], k, values[1]),
                                           _mm512_permutex2var_epi16(values[2], k, values[3]));
        };
        const __m128i p = _mm_cvtsi32_si128(table.p), scale = _mm_cvtsi32_si128(15 - table.q);
        const __m512i last = set16(table.last < 65535 ? table.last : 65535), part = set16((1 << table.p) - 1);
        const __m512i lo = set16(table.limits.lo), hi = set16(table.limits.hi);
        const __m512i mirror = set16(table.symmetry == 2 ? table.mirror - 1 : 0), one = set16(table.symmetry == 2);
        for (std::size_t i = 0; i < size; i += 32) {
            const std::size_t n = size - i < 32 ? size - i : 32;
            const __m512i x = load16(in + i, n);
            const __m512i u = _mm512_min_epu16(_mm512_abs_epi16(x), last);  // |-32768| is 32768
            const __m512i k = _mm512_srl_epi16(u, p), t = _mm512_sll_epi16(bit_and(u, part), scale);
            const __mmask32 second = _mm512_test_epi16_mask(k, set16(64));
            __m512i y = _mm512_adds_epi16(pick(base, k, second), round_high16(pick(slope, k, second), t));
            y = min16(max16(y, lo), hi);
            // -y, or 2^f - y by way of 2^f - 1, which 16 bits hold; both saturate
            const __m512i other = _mm512_adds_epi16(_mm512_subs_epi16(mirror, y), one);
            y = _mm512_mask_mov_epi16(y, _mm512_movepi16_mask(x), min16(max16(other, lo), hi));
            store16(out + i, y, n);
        }
        return true;
    }
};

}  // namespace
}  // namespace rindle
