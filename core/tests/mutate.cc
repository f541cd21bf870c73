// rindle-mutate SEED COUNT FILE...: break .rindle files in COUNT ways, load each from memory, and where that succeeds run
// it. Build with sanitizers (RINDLE_SANITIZE=ON): they are what finds the faults. Besides, a mutant that loads must give the
// same codes frame by frame as at once, through a saved state too.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tools/golden_run.h"
#include "api/rindle.h"

namespace {

std::mt19937_64 generator;

std::size_t below(std::size_t n) { return n == 0 ? 0 : generator() % n; }

const char* const kNumbers[] = {"0",   "1",     "-1",    "2",      "16",      "17",         "31",         "32",
                                "40",  "52",    "64",    "-64",    "127",     "128",        "255",        "256",
                                "257", "32767", "32768", "-32768", "1048576", "1048577",    "2147483647", "2147483648",
                                "1.5", "1e999", "1e-50", "null",   "\"x\"",   "4294967296", "[]",         "-9223372036854775808"};

// One change of the header (JSON text) or the data behind it.
void mutate(std::string& header, std::string& data) {
    switch (below(8)) {
        case 0:  // a byte of the header
            if (!header.empty()) header[below(header.size())] = static_cast<char>(generator());
            break;
        case 1:  // a byte of the data
            if (!data.empty()) data[below(data.size())] = static_cast<char>(generator());
            break;
        case 2: {  // an extreme value in the data
            const std::size_t width = std::size_t{1} << below(4);
            if (data.size() < width) break;
            const std::size_t at = below(data.size() / width) * width;
            std::memset(data.data() + at, below(2) ? 0xff : 0, width);
            if (below(2)) data[at + width - 1] = static_cast<char>(below(2) ? 0x80 : 0x7f);
            break;
        }
        case 3:  // truncation
            (below(2) ? header : data).resize(below((below(2) ? header : data).size() + 1));
            break;
        case 4: {  // a piece of the header twice
            const std::size_t from = below(header.size()), size = below(std::min<std::size_t>(200, header.size() - from));
            header.insert(below(header.size() + 1), header.substr(from, size));
            break;
        }
        case 5:  // a piece of the header less
            if (!header.empty()) header.erase(below(header.size()), below(40));
            break;
        default: {  // another number, three times as often: most rules are about numbers
            std::size_t at = below(header.size());
            while (at < header.size() && !(header[at] >= '0' && header[at] <= '9')) ++at;
            std::size_t end = at;
            while (end < header.size() && header[end] >= '0' && header[end] <= '9') ++end;
            if (at < header.size()) header.replace(at, end - at, kNumbers[below(std::size(kNumbers))]);
        }
    }
}

[[noreturn]] void defect(const char* what) {
    std::printf("DEFECT: %s: %s\n", what, rindle_error());
    std::abort();
}

void must(rindle_status status) {
    if (status != RINDLE_OK) defect("a call failed");
}

std::unique_ptr<rindle_stream, Free> new_stream(const rindle_model* model) {
    rindle_stream* stream = nullptr;
    must(rindle_stream_new(model, &stream));
    return std::unique_ptr<rindle_stream, Free>(stream);
}

// Value: int16_t codes, or floats, whose bits are compared.
template <class Value>
void run(const GoldenVector& golden) {
    const rindle_model* model = golden.model;
    const bool sequence = rindle_output_is_sequence(model);
    std::vector<Value> y(golden.output_count());
    auto stream = new_stream(model);
    must(golden.run(stream.get(), y.data()));
    if (rindle_can_stream(model) != RINDLE_OK) return;

    std::vector<Value> frame(golden.out);
    std::vector<char> state(rindle_state_size(model));
    for (std::size_t row = 0; row < golden.batch; ++row) {
        must(rindle_reset(stream.get()));
        const auto length = static_cast<std::size_t>(golden.lengths[row]);
        for (std::size_t t = 0; t < length; ++t) {
            must(golden.step(stream.get(), row, t, frame.data()));
            const Value* whole = y.data() + (sequence ? row * golden.frames + t : row) * golden.out;
            if ((sequence || t + 1 == length) && std::memcmp(frame.data(), whole, golden.out * sizeof(Value)) != 0)
                defect("step and run differ");
            if (below(4) != 0) continue;
            must(rindle_state_save(stream.get(), state.data(), state.size()));
            stream = new_stream(model);
            must(rindle_state_restore(stream.get(), state.data(), state.size()));
        }
    }
}

std::string read(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (bytes.size() < 8) {
        std::fprintf(stderr, "%s: cannot be read\n", path);
        std::exit(2);
    }
    return bytes;
}

std::uint64_t header_size(const std::string& file) {
    std::uint64_t size = 0;
    for (std::size_t i = 8; i-- > 0;) size = size << 8 | static_cast<unsigned char>(file[i]);
    return size;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: rindle-mutate SEED COUNT FILE...\n");
        return 2;
    }
    generator.seed(std::strtoull(argv[1], nullptr, 10));
    const unsigned long count = std::strtoul(argv[2], nullptr, 10);
    std::vector<std::string> files;
    for (int i = 3; i < argc; ++i) files.push_back(read(argv[i]));

    unsigned long loaded = 0;
    for (unsigned long i = 0; i < count; ++i) {
        const std::string& file = files[below(files.size())];
        const std::size_t split = std::min<std::size_t>(header_size(file), file.size() - 8);
        std::string header = file.substr(8, split), data = file.substr(8 + split);
        for (std::size_t n = 1 + below(3); n > 0; --n) mutate(header, data);
        std::uint64_t size = below(50) ? header.size() : generator() >> below(64);
        std::string bytes;
        for (; bytes.size() < 8; size >>= 8) bytes += static_cast<char>(size & 255);
        bytes += header + data;
        const std::unique_ptr<char[]> exact(new char[bytes.size()]);  // so that a sanitizer sees one byte too many
        std::memcpy(exact.get(), bytes.data(), bytes.size());
        rindle_model* model = nullptr;
        const char* part = rindle_part_name(exact.get(), bytes.size(), i % 3);
        const rindle_status status = part ? rindle_load_part(exact.get(), bytes.size(), part, nullptr, &model)
                                          : rindle_load(exact.get(), bytes.size(), nullptr, &model);
        if (status != RINDLE_OK) continue;
        const std::unique_ptr<rindle_model, Free> owner(model);
        const GoldenVector golden(model);
        golden.floats ? run<float>(golden) : run<std::int16_t>(golden);
        ++loaded;
    }
    std::printf("%lu mutants, %lu of them valid: no defect\n", count, loaded);
    return 0;
}
