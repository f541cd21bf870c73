// Plain loops with a left factor that may be negative, compiled at -O3 with the flags of one kernel's translation unit.
// gcc 12.2 makes unsigned dot products of them where its vectorizer may use VNNI, and the sums are wrong: this guards the
// flags in CMakeLists.txt. RINDLE_PROBE is the name of the function.
#include <cstdint>

namespace {

constexpr int kSize = 256;

[[gnu::noinline]] int nibbles(const std::uint8_t* q, const std::int8_t* x) {
    int sum = 0;
    for (int k = 0; k < kSize; ++k) sum += ((q[k] & 15) - 8) * x[k];
    return sum;
}

[[gnu::noinline]] int offset(const std::uint8_t* q, const std::int8_t* x) {
    int sum = 0;
    for (int k = 0; k < kSize; ++k) sum += (q[k] - 128) * x[k];
    return sum;
}

[[gnu::noinline]] int ternary(const std::uint8_t* q, const std::int8_t* x) {
    int sum = 0;
    for (int k = 0; k < kSize; ++k) sum += (q[k] % 3 - 1) * x[k];
    return sum;
}

}  // namespace

// How many of the loops are wrong.
int RINDLE_PROBE() {
    std::uint8_t q[kSize];
    std::int8_t x[kSize];
    volatile int seven = 7;
    int expected[3] = {};
    for (int k = 0; k < kSize; ++k) {  // seven is read anew each time: no vectors here
        q[k] = static_cast<std::uint8_t>(k * seven);
        x[k] = static_cast<std::int8_t>(k - 128);
        expected[0] += ((q[k] & 15) - 8) * x[k];
        expected[1] += (q[k] - 128) * x[k];
        expected[2] += (q[k] % 3 - 1) * x[k];
    }
    return (nibbles(q, x) != expected[0]) + (offset(q, x) != expected[1]) + (ternary(q, x) != expected[2]);
}
