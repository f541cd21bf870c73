// A small valid file, in pieces that a test can break one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct SmallModel {
    std::string document;
    struct Tensor {
        std::string dtype, shape, bytes;
    };
    std::map<std::string, Tensor> tensors;  // written in the order of their names

    SmallModel();

    template <class T>
    void set(const std::string& name, const std::string& dtype, const std::string& shape, const std::vector<T>& values) {
        tensors[name] = {dtype, shape,
                         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))};
    }

    std::string header() const;  // the JSON header
    std::string file() const { return file(header()); }
    std::string file(const std::string& header) const;
};

// `text` with the one place where `from` stands replaced; the test is wrong if there is none or another one.
std::string replaced(const std::string& text, const std::string& from, const std::string& to);
