#pragma once

#include <nanobind/nanobind.h>

void bind_dynamic(nanobind::module_& m);  // rindle._core.DynamicLinear, DynamicLayer
