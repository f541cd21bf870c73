// The one exception of the core. It never leaves the API: load.cc and run.cc turn it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "api/rindle.h"

namespace rindle {

struct Error : std::runtime_error {
    Error(rindle_status status, const std::string& message) : std::runtime_error(message), status(status) {}
    rindle_status status;
};

}  // namespace rindle
