// What the functions of the C API share: the handles, the message of the last error, and one thread at a time per stream.
#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>

#include "api/rindle.h"
#include "file/error.h"
#include "file/json.h"
#include "run/stream.h"

struct rindle_model {
    std::shared_ptr<const rindle::Model> model;
};

struct rindle_stream {
    explicit rindle_stream(std::shared_ptr<const rindle::Model> model) : stream(std::move(model)) {}
    rindle::Stream stream;
    std::atomic_flag busy;
};

namespace rindle {

// Sets the message of rindle_error, cut at a whole UTF-8 character; returns the status.
[[gnu::format(printf, 2, 3)]] rindle_status fail(rindle_status status, const char* format, ...) noexcept;

// Calls a function that may throw; the message of what it threw, and its status.
template <class Function>
rindle_status guarded(Function&& function) noexcept {
    try {
        return function();
    } catch (const Error& error) {
        return fail(error.status, "%s", error.what());
    } catch (const json::Error& error) {
        return fail(RINDLE_INVALID_FILE, "%s", error.what());
    } catch (const std::bad_alloc&) {
        return fail(RINDLE_NO_MEMORY, "not enough memory");
    } catch (const std::length_error&) {
        return fail(RINDLE_NO_MEMORY, "not enough memory");
    } catch (const std::exception& error) {
        return fail(RINDLE_INTERNAL, "internal error: %s", error.what());
    } catch (...) {
        return fail(RINDLE_INTERNAL, "internal error");
    }
}

inline rindle_status missing(const char* what) noexcept { return fail(RINDLE_INVALID_ARGUMENT, "%s is NULL", what); }

inline rindle_status can_stream(const Model& model) noexcept {
    if (model.not_causal.empty()) return RINDLE_OK;
    return fail(RINDLE_NOT_CAUSAL, "node \"%.256s\" %s: use run, not step", model.not_causal.c_str(), model.why_not_causal);
}

// One thread at a time.
class Turn {
  public:
    explicit Turn(rindle_stream* stream) noexcept
        : stream_(stream), mine_(stream && !stream->busy.test_and_set(std::memory_order_acquire)) {}
    ~Turn() {
        if (mine_) stream_->busy.clear(std::memory_order_release);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    explicit operator bool() const noexcept { return mine_; }
    rindle_status refusal() const noexcept {
        return stream_ ? fail(RINDLE_BUSY, "the stream is in use by another thread; give each thread its own")
                       : missing("stream");
    }

  private:
    rindle_stream* stream_;
    bool mine_;
};

}  // namespace rindle
