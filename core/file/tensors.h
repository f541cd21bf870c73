// The safetensors container: a JSON header and named arrays, without holes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "file/schema.h"

namespace rindle {

// A little-endian number of a file, which need not be aligned.
template <class T>
T read_little(const std::byte* bytes) noexcept {
    std::array<std::byte, sizeof(T)> copy;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        copy[i] = bytes[std::endian::native == std::endian::little ? i : sizeof(T) - 1 - i];
    return std::bit_cast<T>(copy);
}

template <class T>
void write_little(std::byte* bytes, T value) noexcept {
    const auto copy = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i)
        bytes[i] = copy[std::endian::native == std::endian::little ? i : sizeof(T) - 1 - i];
}

struct Tensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::size_t begin = 0, end = 0;
    std::span<const std::byte> bytes;
    bool used = false;  // named in the document
};

class Container {
  public:
    // Throws Error. The file must outlive the container.
    explicit Container(std::span<const std::byte> file);

    const std::string& document() const { return document_; }

    // The bytes of the tensor that `field` names; its type and shape must be these.
    std::span<const std::byte> take(const Field& field, std::string_view dtype, std::vector<std::int64_t> shape);

    // Throws unless nothing has taken the tensor that `field` names: a golden tensor, which the id leaves out, stands alone.
    void check_alone(const Field& field);

    // The same as numbers.
    template <class T>
    std::vector<T> take_numbers(const Field& field, std::string_view dtype, std::vector<std::int64_t> shape) {
        const std::span<const std::byte> bytes = take(field, dtype, std::move(shape));
        std::vector<T> numbers(bytes.size() / sizeof(T));
        for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = read_little<T>(bytes.data() + i * sizeof(T));
        return numbers;
    }

    // The shape of a tensor, where the document leaves it free.
    const std::vector<std::int64_t>& shape(const Field& field);

    void refuse_unused() const;

    // Of a file of parts: leaves the tensors of one, under their own names. Throws for a tensor that is of none of them.
    void keep_part(const std::vector<std::string>& parts, const std::string& name);

  private:
    Tensor& find(const Field& field);

    std::string document_;
    std::unordered_map<std::string, Tensor> tensors_;
};

}  // namespace rindle
