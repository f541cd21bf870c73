// rindle_with_thresholds: the integers of a file with these thresholds, and what is refused.
#include <cstring>
#include <string>
#include <vector>

#include "api/rindle.h"
#include "check.h"
#include "loaded.h"
#include "small_model.h"

void test_thresholds();

namespace {

constexpr const char* kId = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

SmallModel with_theta(const char* theta) {
    SmallModel model;
    model.document = replaced(model.document, ", \"theta\": 1", theta);
    return model;
}

// One threshold of the small model's only code path, on a stream of its own.
struct Changed {
    std::unique_ptr<rindle_model, Free> model;
    std::unique_ptr<rindle_stream, Free> stream;

    Changed(const rindle_model* of, const std::vector<std::int16_t>& theta, const char* id = nullptr) {
        const rindle_threshold one = {"cell", "q", theta.empty() ? nullptr : theta.data(), theta.size()};
        rindle_model* made = nullptr;
        rindle_stream* created = nullptr;
        CHECK(rindle_with_thresholds(of, &one, 1, id, &made) == RINDLE_OK);
        CHECK(rindle_stream_new(made, &created) == RINDLE_OK);
        model.reset(made);
        stream.reset(created);
    }
};

// Outputs of ten frames that move slowly, and what the held path cost.
std::vector<std::int16_t> outputs(rindle_stream* stream, std::size_t held) {
    std::vector<std::int16_t> found;
    for (int t = 0; t < 10; ++t) {
        const std::int16_t x[] = {static_cast<std::int16_t>(3 * t + t * t), static_cast<std::int16_t>(40 - 2 * t)};
        std::int16_t y[2];
        CHECK(rindle_step_codes(stream, x, 2, y, 2) == RINDLE_OK);
        found.insert(found.end(), y, y + 2);
    }
    std::uint64_t frames = 0, changed = 0;
    if (held) CHECK(rindle_counters(stream, &frames, &changed, nullptr) == RINDLE_OK && frames == 10);
    found.push_back(static_cast<std::int16_t>(changed));
    return found;
}

void same_as(const rindle_model* of, const std::vector<std::int16_t>& theta, const SmallModel& whole, const char* kernel) {
    Changed changed(of, theta);
    Loaded loaded(whole, kernel);
    const std::size_t held = theta.empty() ? 0 : 1;
    CHECK(rindle_held_count(changed.model.get()) == held && rindle_held_count(loaded.model.get()) == held);
    CHECK(rindle_state_size(changed.model.get()) == rindle_state_size(loaded.model.get()));
    CHECK(outputs(changed.stream.get(), held) == outputs(loaded.stream.get(), held));
    Changed again(changed.model.get(), theta);  // what it shares outlives the models before it
    changed.model.reset();
    changed.stream.reset();
    Loaded fresh(whole, kernel);
    CHECK(outputs(again.stream.get(), held) == outputs(fresh.stream.get(), held));
}

void shares() {
    SmallModel each = with_theta(", \"theta\": \"cell.theta\"");
    each.set<std::int16_t>("cell.theta", "I16", "[2]", {0, 5});
    for (std::size_t i = 0; const char* kernel = rindle_available_kernel(i); ++i)
        for (const SmallModel& from : {SmallModel(), with_theta("")}) {  // held from the start, or dense
            Loaded loaded(from, kernel);
            const rindle_model* model = loaded.model.get();
            same_as(model, {}, with_theta(""), kernel);
            same_as(model, {1}, SmallModel(), kernel);
            same_as(model, {126}, with_theta(", \"theta\": 126"), kernel);
            same_as(model, {0, 5}, each, kernel);
            CHECK(outputs(Changed(model, {0}).stream.get(), 1) != outputs(Changed(model, {126}).stream.get(), 1));
            CHECK(std::strcmp(rindle_id(model), kId) != 0 && std::strcmp(rindle_kernel(model), kernel) == 0);
        }
}

void saves_states_by_id() {
    Loaded loaded{SmallModel()};
    std::vector<unsigned char> state(rindle_state_size(loaded.model.get()));
    Changed nameless(loaded.model.get(), {3});
    CHECK(std::string(rindle_id(nameless.model.get())).empty());
    CHECK(rindle_state_save(nameless.stream.get(), state.data(), state.size()) == RINDLE_INVALID_ARGUMENT);
    CHECK(said("the model has no id"));
    CHECK(rindle_state_restore(nameless.stream.get(), state.data(), state.size()) == RINDLE_INVALID_ARGUMENT);
    CHECK(said("the model has no id"));

    Changed named(nameless.model.get(), {3}, kId);
    CHECK(std::string(rindle_id(named.model.get())) == kId);
    CHECK(rindle_state_save(named.stream.get(), state.data(), state.size()) == RINDLE_OK && state[8] == 0xff);
    CHECK(rindle_state_restore(named.stream.get(), state.data(), state.size()) == RINDLE_OK);
    CHECK(rindle_state_restore(loaded.stream.get(), state.data(), state.size()) == RINDLE_INVALID_ARGUMENT);
    CHECK(said("saved by another model"));

    std::size_t batch = 9, frames = 9;
    const std::int16_t *inputs = state.empty() ? nullptr : reinterpret_cast<const std::int16_t*>(state.data()), *golden = inputs;
    const std::int32_t* lengths = nullptr;
    rindle_golden(named.model.get(), &batch, &frames, &inputs, &lengths, &golden);
    CHECK(batch == 0 && frames == 0 && !inputs && !lengths && !golden);
}

void refuses() {
    Loaded loaded{SmallModel()};
    const rindle_model* model = loaded.model.get();
    const std::int16_t theta[] = {1, -1, 127};
    const auto refused = [&](std::vector<rindle_threshold> given, const char* id, const char* message) {
        rindle_model* made = reinterpret_cast<rindle_model*>(&given);
        CHECK(rindle_with_thresholds(model, given.data(), given.size(), id, &made) == RINDLE_INVALID_ARGUMENT);
        CHECK(!made);
        if (!said(message)) std::printf("expected \"%s\", got \"%s\"\n", message, rindle_error()), ++failures;
    };
    refused({{"cell", "r", theta, 1}}, nullptr, "no code path \"cell/r\"; there are cell/q");
    refused({{"cell", "y", theta, 1}}, nullptr, "no code path \"cell/y\"");
    refused({{"q", "cell", nullptr, 0}}, nullptr, "no code path \"q/cell\"");
    refused({{"cell", "q", theta, 1}, {"cell", "q", theta, 1}}, nullptr, "cell/q is named twice");
    refused({{"cell", "q", theta, 2}}, nullptr, "cell/q: the threshold -1, must be 0..126");
    refused({{"cell", "q", theta + 2, 1}}, nullptr, "cell/q: the threshold 127, must be 0..126");
    refused({{"cell", "q", theta, 3}}, nullptr, "cell/q: 3 thresholds, must be 1 or 2");
    refused({{"cell", "q", theta, 0}}, nullptr, "thresholds[0] has theta, but a count of 0");
    refused({{nullptr, "q", theta, 1}}, nullptr, "node is NULL");
    refused({{"cell", nullptr, theta, 1}}, nullptr, "path is NULL");
    refused({}, "00", "the id is \"00\", must be 64 lower-case hex digits");
    refused({}, "FFeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100", "must be 64 lower-case hex digits");
    rindle_model* made = nullptr;
    CHECK(rindle_with_thresholds(nullptr, nullptr, 0, nullptr, &made) == RINDLE_INVALID_ARGUMENT && said("model is NULL"));
    CHECK(rindle_with_thresholds(model, nullptr, 1, nullptr, &made) == RINDLE_INVALID_ARGUMENT && said("thresholds is NULL"));
    CHECK(rindle_with_thresholds(model, nullptr, 0, nullptr, nullptr) == RINDLE_INVALID_ARGUMENT && said("made is NULL"));
}

}  // namespace

void test_thresholds() {
    shares();
    saves_states_by_id();
    refuses();
}
