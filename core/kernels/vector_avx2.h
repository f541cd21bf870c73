// 256-bit vectors for kernels_x86.h: AVX2 and FMA, and with RINDLE_VNNI the AVX-VNNI dot products. Only for a translation unit
// compiled for them; all is in an anonymous namespace, so that nothing of it can be linked into another.
#pragma once

#include <immintrin.h>

#include "kernels/kernels.h"

namespace rindle {
namespace {

// For every set of 8 lanes, their numbers in order.
struct Chosen {
    std::uint8_t lanes[256][8];
};

constexpr Chosen choose() {
    Chosen chosen = {};
    for (int which = 0; which < 256; ++which)
        for (int lane = 0, count = 0; lane < 8; ++lane)
            if (which >> lane & 1) chosen.lanes[which][count++] = static_cast<std::uint8_t>(lane);
    return chosen;
}

constexpr Chosen kChosen = choose();

struct Vector {
    static constexpr std::size_t kBytes = 32;
    static constexpr std::size_t kAtOnce = 1;  // vectors that a tile's weights meet at once: one has 8 of 16 registers
    static constexpr const Gates* kGates = &kAvx2Gates;
    using I = __m256i;
    using D = __m256d;

    static I load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static void store(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
    static I zero() { return _mm256_setzero_si256(); }
    static I set8(int v) { return _mm256_set1_epi8(static_cast<char>(v)); }
    static I set16(int v) { return _mm256_set1_epi16(static_cast<short>(v)); }
    static I set32(int v) { return _mm256_set1_epi32(v); }
    static I bit_and(I a, I b) { return _mm256_and_si256(a, b); }
    static I bit_xor(I a, I b) { return _mm256_xor_si256(a, b); }

    // The first n of a vector's elements; the others are zero, and not touched in memory.
    template <class T, class Whole>
    static auto part(const T* p, std::size_t n, std::size_t whole, Whole read) {
        if (n == whole) return read(p);
        alignas(32) T copy[kBytes / sizeof(T)] = {};
        __builtin_memcpy(copy, p, n * sizeof(T));
        return read(copy);
    }

    // ---- 16-bit lanes
    static I load16(const std::int16_t* p, std::size_t n) {
        return part(p, n, 16, [](const std::int16_t* q) { return load(q); });
    }
    static void store16(std::int16_t* p, I v, std::size_t n) {
        if (n == 16) return store(p, v);
        alignas(32) std::int16_t copy[16];
        store(copy, v);
        __builtin_memcpy(p, copy, n * sizeof *p);
    }
    static I min16(I a, I b) { return _mm256_min_epi16(a, b); }
    static I max16(I a, I b) { return _mm256_max_epi16(a, b); }
    static I add16(I a, I b) { return _mm256_add_epi16(a, b); }
    static I left16(I v, int count) { return _mm256_sll_epi16(v, _mm_cvtsi32_si128(count)); }
    static I right16(I v, int count) { return _mm256_sra_epi16(v, _mm_cvtsi32_si128(count)); }
    // The low bytes of 16 lanes
    static void store_bytes(void* p, I v) {
        const __m256i low = bit_and(v, set16(0xFF));
        _mm_storeu_si128(static_cast<__m128i*>(p),
                         _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
    }

    // ---- 32-bit lanes
    static __m128i words(const std::int16_t* p, std::size_t n) {
        return part(p, n, 8, [](const std::int16_t* q) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)); });
    }
    static I widen(const std::int16_t* p, std::size_t n) { return _mm256_cvtepi16_epi32(words(p, n)); }
    static I widen_unsigned(const std::int16_t* p, std::size_t n) { return _mm256_cvtepu16_epi32(words(p, n)); }
    // Of values that int16 holds
    static void narrow(std::int16_t* p, I v, std::size_t n) {
        const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        if (n == 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), low);
        alignas(16) std::int16_t copy[8];
        _mm_store_si128(reinterpret_cast<__m128i*>(copy), low);
        __builtin_memcpy(p, copy, n * sizeof *p);
    }
    static I load32(const std::int32_t* p, std::size_t n) {
        return part(p, n, 8, [](const std::int32_t* q) { return load(q); });
    }
    static I add32(I a, I b) { return _mm256_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm256_sub_epi32(a, b); }
    static I min32(I a, I b) { return _mm256_min_epi32(a, b); }
    static I max32(I a, I b) { return _mm256_max_epi32(a, b); }
    static I left32(I v, int count) { return _mm256_sll_epi32(v, _mm_cvtsi32_si128(count)); }
    static I right32(I v, int count) { return _mm256_sra_epi32(v, _mm_cvtsi32_si128(count)); }
    static I multiply_pairs(I a, I b) { return _mm256_madd_epi16(a, b); }  // a0 b0 + a1 b1 of 16-bit pairs
    static I gather32(const void* base, I index) {
        return _mm256_i32gather_epi32(static_cast<const int*>(base), index, 4);
    }
    static unsigned first(std::size_t n) { return (1U << n) - 1; }
    static int differing(I a, I b, std::size_t n) {
        const auto equal = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b))));
        return __builtin_popcount(~equal & first(n));
    }

    // ---- doubles: 4 lanes, half of the 32-bit ones
    static D set(double v) { return _mm256_set1_pd(v); }
    static D lower(I v) { return _mm256_cvtepi32_pd(_mm256_castsi256_si128(v)); }
    static D upper(I v) { return _mm256_cvtepi32_pd(_mm256_extracti128_si256(v, 1)); }
    static I floors(D low, D high) {
        return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm256_cvtpd_epi32(_mm256_floor_pd(low))),
                                       _mm256_cvtpd_epi32(_mm256_floor_pd(high)), 1);
    }
    static D load_double(const double* p, std::size_t n) {
        return part(p, n, 4, [](const double* q) { return _mm256_loadu_pd(q); });
    }
    static D load_float(const float* p, std::size_t n) {
        return part(p, n, 4, [](const float* q) { return _mm256_cvtps_pd(_mm_loadu_ps(q)); });
    }
    static D load_wide(const std::int64_t* p, std::size_t n) {
        return part(p, n, 4, [](const std::int64_t* q) {
            return _mm256_setr_pd(static_cast<double>(q[0]), static_cast<double>(q[1]), static_cast<double>(q[2]),
                                  static_cast<double>(q[3]));
        });
    }
    static D multiply(D a, D b) { return _mm256_mul_pd(a, b); }
    static D add(D a, D b) { return _mm256_add_pd(a, b); }
    static D multiply_add(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
    static D min(D a, D b) { return _mm256_min_pd(a, b); }
    static D max(D a, D b) { return _mm256_max_pd(a, b); }
    static int differing(D a, D b, std::size_t n) {
        const auto other = static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_NEQ_OQ)));
        return __builtin_popcount(other & first(n));
    }

    // acc[lane] += 256 high + low, in 64 bits
    static void add_wide(std::int64_t* acc, I high, I low) {
        for (int i = 0; i < 2; ++i) {
            const __m256i h = _mm256_cvtepi32_epi64(i ? _mm256_extracti128_si256(high, 1) : _mm256_castsi256_si128(high));
            const __m256i l = _mm256_cvtepi32_epi64(i ? _mm256_extracti128_si256(low, 1) : _mm256_castsi256_si128(low));
            store(acc + 4 * i, _mm256_add_epi64(load(acc + 4 * i), _mm256_add_epi64(_mm256_slli_epi64(h, 8), l)));
        }
    }

    // ---- dot products of four bytes, or two words, per 32-bit lane
    static std::int32_t read32(const void* p) {
        std::int32_t v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
#ifdef RINDLE_VNNI
    static constexpr const char* kName = "avxvnni";
    static constexpr int kCodeOffset = 128;    // codes are stored as unsigned code + 128 for dot8
    static constexpr int kWeightOffset = 128;  // and so are the weights of a column, for dot8_column
    static constexpr int kMostChanges = 20;    // of 32 columns: where more changed, a product anew is faster
    using Codes = __m256i;  // four bytes of codes or changes, in every 32-bit lane
    static Codes broadcast(const void* p) { return set32(read32(p)); }
    // In assembly, because gcc 12 copies and spills arrays of accumulators around the intrinsics.
    static I dot_unsigned(I acc, I u, I s) {
#if defined(__clang__)
        return _mm256_dpbusd_avx_epi32(acc, u, s);
#else
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u), "x"(s));
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
    static I high_of(I low, I other) { return _mm256_srai_epi32(sub32(other, low), 4); }
    static I dot16(I acc, I weights, Codes x) {
#if defined(__clang__)
        return _mm256_dpwssd_avx_epi32(acc, weights, x);
#else
        __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(weights), "x"(x));
        return acc;
#endif
    }
#else
    static constexpr const char* kName = "avx2";
    static constexpr int kCodeOffset = 0;
    static constexpr int kWeightOffset = 0;
    static constexpr int kMostChanges = 18;  // of 32 columns: where more changed, a product anew is faster
    struct Codes {
        __m256i value, magnitude;
    };
    static Codes broadcast(const void* p) {
        const __m256i value = set32(read32(p));
        return {value, _mm256_abs_epi8(value)};
    }
    // |x| (w sign(x)): pairs stay within 16 bits, because neither code is ever -128.
    static I dot8(I acc, I weights, Codes x) {
        const __m256i pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_sign_epi8(weights, x.value));
        return add32(acc, _mm256_madd_epi16(pairs, set16(1)));
    }
    static I dot8_column(I acc, I weights, Codes delta) { return dot8(acc, weights, delta); }
    static I dot_unsigned(I acc, I u, I s) { return add32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), set16(1))); }
    // Two weights of 4 bits, unsigned, in every byte: the sums over the low ones and over the high ones.
    static void dot4(I& low, I& other, I bytes, Codes x) {
        low = dot_unsigned(low, bit_and(bytes, set8(0x0F)), x.value);
        other = dot_unsigned(other, bit_and(_mm256_srli_epi16(bytes, 4), set8(0x0F)), x.value);
    }
    static I high_of(I, I other) { return other; }
    static I dot16(I acc, I weights, Codes x) { return add32(acc, _mm256_madd_epi16(weights, x.value)); }
#endif

    static I unpack_low8(I a, I b) { return _mm256_unpacklo_epi8(a, b); }
    static I unpack_high8(I a, I b) { return _mm256_unpackhi_epi8(a, b); }
    static I unpack_low16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
    static I unpack_high16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
    static std::int64_t sum32(I v) {
        alignas(32) std::int32_t lanes[8];
        store(lanes, v);
        std::int64_t sum = 0;
        for (std::int32_t lane : lanes) sum += lane;
        return sum;
    }

    // ---- changes of a held path
    // All ones where |v - held| does not exceed theta, in 16-bit lanes; the difference is an unsigned one
    static I unchanged(I v, I held, I theta) {
        const I distance = _mm256_sub_epi16(max16(v, held), min16(v, held));
        return _mm256_cmpeq_epi16(_mm256_subs_epu16(distance, theta), zero());
    }
    static int count_changes(const std::int16_t* v, const std::int16_t* held, const std::int16_t* theta, std::size_t n) {
        const I same = unchanged(load16(v, n), load16(held, n), load16(theta, n));  // beyond n: 0 and 0
        return 16 - __builtin_popcount(static_cast<unsigned>(_mm256_movemask_epi8(same))) / 2;
    }
    static void replace_changes(const std::int16_t* v, std::int16_t* held, const std::int16_t* theta, std::size_t n) {
        const I now = load16(v, n), old = load16(held, n);
        store16(held, _mm256_blendv_epi8(now, old, unchanged(now, old, load16(theta, n))), n);
    }
    // Lanes of n whose |d| exceeds theta, as bits.
    static unsigned exceeds(I d, I theta, std::size_t n) {
        const __m256i larger = _mm256_cmpgt_epi32(_mm256_abs_epi32(d), theta);
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(larger))) & first(n);
    }
    // Appends the lanes' numbers, counted from first, and their d. Writes 8 places.
    static void list(std::int32_t* index, std::int16_t* delta, int first, I d, unsigned which) {
        const __m256i chosen = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kChosen.lanes[which])));
        store(index, add32(set32(first), chosen));
        narrow(delta, _mm256_permutevar8x32_epi32(d, chosen), 8);
    }

    static bool lookup(const Lookup&, const std::int16_t*, std::int16_t*, std::size_t) { return false; }
};

}  // namespace
}  // namespace rindle
