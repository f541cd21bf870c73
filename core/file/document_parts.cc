// A file of several models (docs/format.md, "Parts"): the names of its parts, and one of them. The others are not read.
#include <algorithm>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

constexpr std::size_t kMaxParts = 64;

// Whether a document says that it holds parts; nothing of it has been checked yet.
bool is_of_parts(const Field& root) {
    if (!root["version"].is_integer() || root["version"].integer(INT64_MIN, INT64_MAX) != 4) return false;
    if (!root.has("needs") || !root["needs"].is_array()) return false;
    const auto needs = root["needs"].items(0, SIZE_MAX);
    return std::any_of(needs.begin(), needs.end(), [](const Field& one) { return one.text() == "parts"; });
}

// The parts in order; all but their documents is checked.
std::vector<std::pair<std::string, Field>> read_parts(const Field& root) {
    const Needs needs(root["needs"]);
    if (root["needs"].items(1, kMaxFeatures).size() > 1)
        root["needs"].fail("must be \"parts\" alone: each part has its own");
    root.keys({"version", "needs", "id", "parts"});
    check_id(root["id"]);
    std::vector<std::pair<std::string, Field>> parts;
    for (const Field& item : root["parts"].items(2, kMaxParts)) {
        item.keys({"name", "document"});
        const std::string& name = item["name"].name();
        if (name.find('/') != std::string::npos) item["name"].fail("is \"" + name + "\", must have no slash");
        for (const auto& [earlier, field] : parts)
            if (earlier == name) item["name"].fail("is \"" + name + "\", the name of an earlier part");
        item["document"].check_object();
        parts.emplace_back(name, item["document"]);
    }
    return parts;
}

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "\"" : ", \"") + name + "\"";
    return text;
}

std::vector<std::string> names_of(const std::vector<std::pair<std::string, Field>>& parts) {
    std::vector<std::string> names;
    for (const auto& [name, field] : parts) names.push_back(name);
    return names;
}

}  // namespace

Document read_document(std::span<const std::byte> file) {
    Container tensors(file);
    const json::Value value = json::parse(tensors.document());
    const Field root(value, "");
    if (is_of_parts(root))
        throw Error(RINDLE_INVALID_ARGUMENT, "parts: the file has several models, the parts " +
                                                 listed(names_of(read_parts(root))) + ": load one by its name");
    return read_model(root, tensors);
}

Document read_part(std::span<const std::byte> file, const std::string& name) {
    Container tensors(file);
    const json::Value value = json::parse(tensors.document());
    const Field root(value, "");
    if (!is_of_parts(root)) {
        read_model(root, tensors);  // which says what else may be wrong
        throw Error(RINDLE_INVALID_ARGUMENT, "the file has one model and no part \"" + name + "\": load it without a name");
    }
    const auto parts = read_parts(root);
    const auto names = names_of(parts);
    tensors.keep_part(names, name);
    for (const auto& [own, document] : parts)
        if (own == name) return read_model(document, tensors);
    throw Error(RINDLE_INVALID_ARGUMENT, "the file has no part \"" + name + "\"; it has " + listed(names));
}

std::vector<std::string> read_part_names(std::span<const std::byte> file) {
    const Container tensors(file);
    const json::Value value = json::parse(tensors.document());
    const Field root(value, "");
    return is_of_parts(root) ? names_of(read_parts(root)) : std::vector<std::string>();
}

}  // namespace rindle
