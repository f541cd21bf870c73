// What a file of format version 4 needs of its reader: named features (docs/format.md, "Needs").
#include <algorithm>
#include <string_view>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

// Sorted. A new feature is a name here, and in FEATURES of src/rindle/file/needs.py; what reads it calls Needs::use.
constexpr std::array<std::string_view, 3> kFeatures = {
    "initial_states",
    "levels",
    "parts",  // of the file around several models: document_parts.cc
};

}  // namespace

Needs::Needs(const Field& field) {
    for (const Field& item : field.items(1, kMaxFeatures)) {
        const std::string& name = item.name();
        if (std::find(kFeatures.begin(), kFeatures.end(), name) == kFeatures.end())
            throw Error(RINDLE_NEWER_VERSION, item.where() + ": this file needs '" + name + "'; update rindle to read it");
        if (!names_.empty() && names_.back() >= name) item.fail("stands behind '" + names_.back() + "': names are sorted, each once");
        names_.push_back(name);
        used_.push_back(false);
    }
}

void Needs::use(std::string_view feature, const Field& field) const {
    const auto found = std::find(names_.begin(), names_.end(), feature);
    if (found == names_.end()) field.fail("is of '" + std::string(feature) + "', which \"needs\" does not name");
    used_[static_cast<std::size_t>(found - names_.begin())] = true;
}

void Needs::refuse_unused(const Field& field) const {
    for (std::size_t i = 0; i < names_.size(); ++i)
        if (!used_[i]) field.fail("names '" + names_[i] + "', which nothing in the file uses");
}

}  // namespace rindle
