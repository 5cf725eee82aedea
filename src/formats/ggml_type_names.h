// SPDX-License-Identifier: Apache-2.0
// Names of the tensor types that ggml knows and nibble does not read, for messages.
#pragma once

#include <cstdint>
#include <string_view>

namespace nibble::formats {

// Empty for an id that never was a ggml type.
constexpr std::string_view foreign_ggml_type_name(std::uint32_t id) {
  struct Name {
    std::uint32_t id;
    std::string_view name;
  };
  constexpr Name kNames[] = {
      {4, "Q4_2"},      {5, "Q4_3"},      {6, "Q5_0"},      {7, "Q5_1"},     {9, "Q8_1"},
      {10, "Q2_K"},     {11, "Q3_K"},     {12, "Q4_K"},     {13, "Q5_K"},    {14, "Q6_K"},
      {15, "Q8_K"},     {16, "IQ2_XXS"},  {17, "IQ2_XS"},   {18, "IQ3_XXS"}, {19, "IQ1_S"},
      {20, "IQ4_NL"},   {21, "IQ3_S"},    {22, "IQ2_S"},    {23, "IQ4_XS"},  {24, "I8"},
      {25, "I16"},      {26, "I32"},      {27, "I64"},      {28, "F64"},     {29, "IQ1_M"},
      {31, "Q4_0_4_4"}, {32, "Q4_0_4_8"}, {33, "Q4_0_8_8"}, {34, "TQ1_0"},   {35, "TQ2_0"},
      {39, "MXFP4"},    {40, "NVFP4"},
  };
  for (const Name& entry : kNames) {
    if (entry.id == id) {
      return entry.name;
    }
  }
  return {};
}

}  // namespace nibble::formats
