// SPDX-License-Identifier: Apache-2.0
// Misuse of the tensor functions: nothing is written.
#include <cmath>

#include "support/misuse.h"

namespace nibble::test {
namespace {

TEST(MisuseOfTensors, GlobalNorm) {
  const float x[4] = {3, 4, 0, 0};
  const void* tensors[] = {x, nullptr};
  std::int64_t counts[] = {4, 0};
  const char* dtypes[] = {"F32", "F16"};
  double norm = -7;
  std::int64_t bad = -7;
  const auto ask = [&](std::int64_t n, const char* const* types = nullptr) {
    return nibble_global_norm(tensors, counts, types, n, &norm, &bad);
  };
  expect_failure(nibble_global_norm(tensors, counts, nullptr, 1, nullptr, &bad),
                 NIBBLE_INVALID_ARGUMENT, "out_norm is null");
  expect_failure(nibble_global_norm(nullptr, counts, nullptr, 1, &norm, &bad),
                 NIBBLE_INVALID_ARGUMENT, "tensors is null");
  expect_failure(nibble_global_norm(tensors, nullptr, nullptr, 1, &norm, &bad),
                 NIBBLE_INVALID_ARGUMENT, "counts is null");
  expect_failure(ask(-1), NIBBLE_INVALID_ARGUMENT, "n is -1");
  expect_failure(ask(2, dtypes), NIBBLE_UNSUPPORTED, "dtype \"F16\"");
  counts[1] = 3;
  expect_failure(ask(2), NIBBLE_INVALID_ARGUMENT, "tensor 1: 3 elements");
  counts[1] = -3;
  expect_failure(ask(2), NIBBLE_INVALID_ARGUMENT, "tensor 1: -3 elements");
  EXPECT_EQ(norm, -7);
  EXPECT_EQ(bad, -7);
  counts[1] = 0;
  EXPECT_EQ(ask(2), NIBBLE_OK) << "an empty tensor needs no memory";
  EXPECT_EQ(norm, 5);
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(nibble_global_norm(nullptr, nullptr, nullptr, 0, &norm, nullptr), NIBBLE_OK);
  EXPECT_EQ(norm, 0);
}

TEST(MisuseOfTensors, Accumulate) {
  std::vector<float> sum(4, 1.0F);
  const std::vector<float> x = {1, 2, 3, 4};
  const auto add = [&](std::int64_t n, double scale, const char* dtype = "F32") {
    return nibble_accumulate(sum.data(), x.data(), dtype, n, scale);
  };
  expect_failure(nibble_accumulate(nullptr, x.data(), "F32", 4, 1), NIBBLE_INVALID_ARGUMENT,
                 "sum is null");
  expect_failure(nibble_accumulate(sum.data(), nullptr, "F32", 4, 1), NIBBLE_INVALID_ARGUMENT,
                 "x is null");
  expect_failure(add(-1, 1), NIBBLE_INVALID_ARGUMENT, "count is -1");
  expect_failure(add(4, 1, "F64"), NIBBLE_UNSUPPORTED, "dtype \"F64\"");
  for (const double bad : {double{NAN}, double{INFINITY}, 1e300}) {
    expect_failure(add(4, bad), NIBBLE_INVALID_ARGUMENT, "scale is ");
  }
  EXPECT_EQ(sum, std::vector<float>(4, 1.0F));
  EXPECT_EQ(nibble_accumulate(nullptr, nullptr, "BF16", 0, 1), NIBBLE_OK);
  EXPECT_EQ(add(4, 0), NIBBLE_OK) << "zero is zero";
  EXPECT_EQ(sum, std::vector<float>(4, 1.0F));
  EXPECT_EQ(add(4, -2), NIBBLE_OK);
  EXPECT_EQ(sum, (std::vector<float>{-1, -3, -5, -7}));
}

class Quantising : public ::testing::Test {
 protected:
  // All three functions with this descriptor.
  void refused(nibble_status status, const std::string& message, std::int64_t count = 4) {
    expect_failure(nibble_quantized_size(&desc_, count, &bytes_, &n_scales_), status, message);
    expect_failure(nibble_quantize(&desc_, x_.data(), count, codes_.data(), scales_.data()), status,
                   message);
    expect_failure(nibble_dequantize(&desc_, codes_.data(), scales_.data(), count, x_.data()),
                   status, message);
    expect_untouched();
  }
  void expect_untouched() const {
    EXPECT_EQ(x_, std::vector<float>(4, 0.5F));
    EXPECT_EQ(codes_, std::vector<std::uint8_t>(4, 9));
    EXPECT_EQ(scales_, std::vector<float>(1, -7));
    EXPECT_EQ(bytes_, 77U);
    EXPECT_EQ(n_scales_, -7);
  }
  nibble_quantize_desc desc_ = api::make<nibble_quantize_desc>();
  std::vector<float> x_ = std::vector<float>(4, 0.5F);
  std::vector<std::uint8_t> codes_ = std::vector<std::uint8_t>(4, 9);
  std::vector<float> scales_ = std::vector<float>(1, -7);
  std::uint64_t bytes_ = 77;
  std::int64_t n_scales_ = -7;
};

TEST_F(Quantising, DescriptorsAreChecked) {
  using Desc = const nibble_quantize_desc*;
  expect_sizes_checked(desc_,
                       [&](Desc d) { return nibble_quantized_size(d, 4, &bytes_, &n_scales_); });
  expect_sizes_checked(desc_, [&](Desc d) {
    return nibble_quantize(d, x_.data(), 4, codes_.data(), scales_.data());
  });
  expect_sizes_checked(desc_, [&](Desc d) {
    return nibble_dequantize(d, codes_.data(), scales_.data(), 4, x_.data());
  });
  expect_untouched();
  for (const char* format : {"fp32", "bf16", "int3", ""}) {
    desc_.format = format;
    refused(NIBBLE_UNSUPPORTED, std::string("\"") + format + "\"");
  }
  desc_.format = "int4_rank1";
  refused(NIBBLE_UNSUPPORTED, "\"int4_rank1\" has no block scales for unsigned values");
  desc_.format = nullptr, desc_.mode = "bits";
  refused(NIBBLE_UNSUPPORTED, "unknown mode \"bits\"");
  desc_.mode = "torch";
  refused(NIBBLE_UNSUPPORTED, "\"torch\" does not quantise");
  desc_.mode = nullptr;
  for (const std::int64_t block : {-1, 1, 31, 33, 8192}) {
    desc_.block_size = block;
    refused(NIBBLE_INVALID_ARGUMENT, "block_size is " + std::to_string(block));
  }
  desc_.block_size = 0;
  refused(NIBBLE_INVALID_ARGUMENT, "count is -1", -1);
  refused(NIBBLE_INVALID_ARGUMENT, "count is -9223372036854775808", INT64_MIN);
}

TEST_F(Quantising, ScalesOfScales) {
  float* x = x_.data();
  std::uint8_t* codes = codes_.data();
  float* scales = scales_.data();
  float offset = 3;
  constexpr auto kInvalid = NIBBLE_INVALID_ARGUMENT;
  const auto compress = [&](const nibble_quantize_desc* d) {
    return nibble_compress_scales(d, x, 4, codes, scales, &offset);
  };
  const auto expand = [&](const nibble_quantize_desc* d) {
    return nibble_expand_scales(d, codes, scales, &offset, 4, x);
  };
  desc_.is_signed = 0;
  expect_failure(compress(&desc_), kInvalid, "need is_signed = 1");
  expect_failure(expand(&desc_), kInvalid, "need is_signed = 1");
  desc_.is_signed = 1;
  expect_sizes_checked(desc_, compress);
  expect_sizes_checked(desc_, expand);
  const auto compress_to = [&](float* of, void* to, float* nested, float* mean) {
    return nibble_compress_scales(&desc_, of, 4, to, nested, mean);
  };
  expect_failure(compress_to(nullptr, codes, scales, &offset), kInvalid, "scales is null");
  expect_failure(compress_to(x, nullptr, scales, &offset), kInvalid, "codes is null");
  expect_failure(compress_to(x, codes, nullptr, &offset), kInvalid, "nested_scales is null");
  expect_failure(compress_to(x, codes, scales, nullptr), kInvalid, "offset is null");
  const auto expand_from = [&](const void* from, const float* nested, const float* mean,
                               float* to) {
    return nibble_expand_scales(&desc_, from, nested, mean, 4, to);
  };
  expect_failure(expand_from(nullptr, scales, &offset, x), kInvalid, "codes is null");
  expect_failure(expand_from(codes, nullptr, &offset, x), kInvalid, "nested_scales is null");
  expect_failure(expand_from(codes, scales, nullptr, x), kInvalid, "offset is null");
  expect_failure(expand_from(codes, scales, &offset, nullptr), kInvalid, "scales is null");
  expect_untouched();
  EXPECT_EQ(offset, 3);
  EXPECT_EQ(nibble_compress_scales(&desc_, nullptr, 0, nullptr, nullptr, nullptr), NIBBLE_OK);
  EXPECT_EQ(nibble_expand_scales(&desc_, nullptr, nullptr, nullptr, 0, nullptr), NIBBLE_OK);
}

TEST_F(Quantising, PointersAreChecked) {
  float* x = x_.data();
  std::uint8_t* codes = codes_.data();
  float* scales = scales_.data();
  constexpr auto kInvalid = NIBBLE_INVALID_ARGUMENT;
  expect_failure(nibble_quantize(&desc_, nullptr, 4, codes, scales), kInvalid, "src is null");
  expect_failure(nibble_quantize(&desc_, x, 4, nullptr, scales), kInvalid, "codes is null");
  expect_failure(nibble_quantize(&desc_, x, 4, codes, nullptr), kInvalid, "scales is null");
  expect_failure(nibble_dequantize(&desc_, nullptr, scales, 4, x), kInvalid, "codes is null");
  expect_failure(nibble_dequantize(&desc_, codes, nullptr, 4, x), kInvalid, "scales is null");
  expect_failure(nibble_dequantize(&desc_, codes, scales, 4, nullptr), kInvalid, "dst is null");
  expect_untouched();
  EXPECT_EQ(nibble_quantize(&desc_, nullptr, 0, nullptr, nullptr), NIBBLE_OK);
  EXPECT_EQ(nibble_dequantize(&desc_, nullptr, nullptr, 0, nullptr), NIBBLE_OK);
  EXPECT_EQ(nibble_quantized_size(&desc_, 4, nullptr, nullptr), NIBBLE_OK);
  EXPECT_EQ(nibble_quantized_size(&desc_, INT64_MAX, &bytes_, &n_scales_), NIBBLE_OK);
  EXPECT_EQ(bytes_, static_cast<std::uint64_t>(INT64_MAX));
  EXPECT_EQ(n_scales_, INT64_MAX / 256 + 1);
}

TEST_F(Quantising, Maps) {
  std::vector<float> out(256, -7);
  std::int64_t count = -7;
  expect_sizes_checked(desc_, [&](const nibble_quantize_desc* d) {
    return nibble_format_map(d, out.data(), &count);
  });
  expect_failure(nibble_format_map(&desc_, nullptr, &count), NIBBLE_INVALID_ARGUMENT,
                 "out is null");
  desc_.format = "bf16";
  expect_failure(nibble_format_map(&desc_, out.data(), &count), NIBBLE_UNSUPPORTED, "\"bf16\"");
  EXPECT_EQ(count, -7);
  EXPECT_EQ(out, std::vector<float>(256, -7));
  desc_.format = "int4", desc_.mode = "no such", desc_.block_size = 7;
  ASSERT_EQ(nibble_format_map(&desc_, out.data(), &count), NIBBLE_OK)
      << "only format and is_signed count: " << nibble_last_error();
  EXPECT_EQ(count, 16);
  for (int k = 0; k < 16; ++k) {
    EXPECT_EQ(out[static_cast<std::size_t>(k)], static_cast<float>(k + 1) / 16.0F);
  }
  EXPECT_EQ(out[16], -7) << "sixteen values";
  desc_.format = nullptr;
  EXPECT_EQ(nibble_format_map(&desc_, out.data(), nullptr), NIBBLE_OK);
}

}  // namespace
}  // namespace nibble::test
