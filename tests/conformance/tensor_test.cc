// SPDX-License-Identifier: Apache-2.0
// Functions over whole tensors on the device against those of the host.
#include <random>

#include "conformance/device_run.h"
#include "math/formats/ggml_blocks.h"

namespace nibble::test {
namespace {

class DeviceTensors : public DeviceTest {};

nibble_quantize_desc quantize_desc(const char* format, const char* mode, bool is_signed,
                                   std::int64_t block) {
  auto desc = api::make<nibble_quantize_desc>();
  desc.format = format, desc.mode = mode, desc.is_signed = is_signed ? 1 : 0;
  desc.block_size = block;
  return desc;
}

void expect_same_codes(nibble_quantize_desc desc, const std::vector<float>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  std::uint64_t bytes = 0;
  std::int64_t blocks = 0;
  api::check(nibble_quantized_size(&desc, n, &bytes, &blocks));
  std::vector<std::uint8_t> codes(bytes);
  std::vector<float> scales(static_cast<std::size_t>(blocks)), back(x.size());
  api::check(nibble_quantize(&desc, x.data(), n, codes.data(), scales.data()));
  api::check(nibble_dequantize(&desc, codes.data(), scales.data(), n, back.data()));

  const OnDevice source(x);
  const OnDevice device_codes(std::vector<std::uint8_t>(bytes, 0x55));
  const OnDevice device_scales(std::vector<float>(scales.size()));
  const OnDevice device_back(std::vector<float>(x.size()));
  desc.device = "cuda";
  api::check(
      nibble_quantize(&desc, source.floats(), n, device_codes.get(), device_scales.floats()));
  api::check(nibble_dequantize(&desc, device_codes.get(), device_scales.floats(), n,
                               device_back.floats()));
  ASSERT_TRUE(device_codes.read() == codes) << desc.format << " " << desc.mode << " " << n;
  const auto bits = [](const std::vector<float>& values) {
    const auto* p = reinterpret_cast<const std::uint8_t*>(values.data());
    return std::vector<std::uint8_t>(p, p + values.size() * sizeof(float));
  };
  ASSERT_TRUE(device_scales.read() == bits(scales)) << desc.format << " " << n;
  ASSERT_TRUE(device_back.read() == bits(back)) << desc.format << " " << n;
}

TEST_F(DeviceTensors, QuantiseAndDequantiseInEveryFormatAndMode) {
  for (std::int32_t i = 0; i < nibble_format_count(); ++i) {
    const std::string format = nibble_format_name(i);
    for (const bool is_signed : {true, false}) {
      auto probe = quantize_desc(format.c_str(), "default", is_signed, 0);
      std::uint64_t bytes = 0;
      if (nibble_quantized_size(&probe, 1, &bytes, nullptr) != NIBBLE_OK) {
        continue;  // fp32, bf16; rank-1 scales
      }
      for (const char* mode : {"default", "bnb", "bnb-cuda", "torchao"}) {
        for (const char* input : kInputNames) {
          for (const std::size_t n : {1U, 63U, 257U, 5000U}) {
            auto x = make_input(input, n);
            for (float& value : x) {
              value = is_signed ? value : std::abs(value);
            }
            expect_same_codes(quantize_desc(format.c_str(), mode, is_signed, 0), x);
          }
        }
        for (const std::int64_t block : {32, 64, 1024, 4096}) {
          auto x = make_input("normal", 9001);
          for (float& value : x) {
            value = is_signed ? value : std::abs(value);
          }
          expect_same_codes(quantize_desc(format.c_str(), mode, is_signed, block), x);
        }
      }
    }
  }
}

TEST_F(DeviceTensors, CodesAndFloatsAtOddAddresses) {
  auto desc = quantize_desc("int8", "default", true, 0);
  const auto x = make_input("normal", 5001);
  std::vector<std::uint8_t> codes(x.size());
  std::vector<float> scales(20), back(x.size());
  api::check(nibble_quantize(&desc, x.data(), 5001, codes.data(), scales.data()));
  api::check(nibble_dequantize(&desc, codes.data(), scales.data(), 5001, back.data()));
  desc.device = "cuda";
  for (const std::size_t offset : {1U, 4U, 9U}) {
    const OnDevice source(x, 4 * offset);
    const OnDevice device_codes(std::vector<std::uint8_t>(x.size()), offset);
    const OnDevice device_scales(std::vector<float>(scales.size()), 4);
    const OnDevice device_back(std::vector<float>(x.size()), 4 * offset);
    api::check(
        nibble_quantize(&desc, source.floats(), 5001, device_codes.get(), device_scales.floats()));
    api::check(nibble_dequantize(&desc, device_codes.get(), device_scales.floats(), 5001,
                                 device_back.floats()));
    EXPECT_TRUE(device_codes.read() == codes) << offset;
    EXPECT_TRUE(device_back.read<float>() == back) << offset;
  }
}

TEST_F(DeviceTensors, DoubleQuantisation) {
  auto four = quantize_desc("nf4", "bnb", true, 64);
  auto eight = quantize_desc("int8", "bnb", true, 256);
  const auto x = make_input("logscale", 64 * 1001);
  const auto count = static_cast<std::int64_t>(x.size());
  const std::int64_t n = 1001;
  std::vector<std::uint8_t> codes(x.size() / 2), scale_codes(n);
  std::vector<float> scales(n), nested(4), expanded(n);
  float offset = 0;
  api::check(nibble_quantize(&four, x.data(), count, codes.data(), scales.data()));
  const OnDevice device_scales(scales);
  api::check(
      nibble_compress_scales(&eight, scales.data(), n, scale_codes.data(), nested.data(), &offset));
  api::check(
      nibble_expand_scales(&eight, scale_codes.data(), nested.data(), &offset, n, expanded.data()));
  const OnDevice device_codes(std::vector<std::uint8_t>(scale_codes.size()));
  const OnDevice device_nested(std::vector<float>(nested.size()));
  const OnDevice device_offset(std::vector<float>(1));
  eight.device = "cuda";
  api::check(nibble_compress_scales(&eight, device_scales.floats(), n, device_codes.get(),
                                    device_nested.floats(), device_offset.floats()));
  EXPECT_TRUE(device_scales.read<float>() == scales);  // less their mean
  api::check(nibble_expand_scales(&eight, device_codes.get(), device_nested.floats(),
                                  device_offset.floats(), n, device_scales.floats()));
  EXPECT_TRUE(device_codes.read() == scale_codes);
  EXPECT_TRUE(device_nested.read<float>() == nested);
  EXPECT_EQ(device_offset.read<float>()[0], offset);
  EXPECT_TRUE(device_scales.read<float>() == expanded);
}

TEST_F(DeviceTensors, Accumulation) {
  for (const std::size_t n : {1U, 7U, 4096U, 10001U}) {
    auto sum = make_input("normal", n, 1);
    const auto x = make_input("normal", n, 2);
    const OnDevice device_sum(sum);
    const OnDevice device_x(x);
    const auto count = static_cast<std::int64_t>(n);
    api::check(nibble_accumulate(sum.data(), x.data(), "F32", count, 0.3));
    api::check(nibble_device_accumulate("cuda", nullptr, device_sum.floats(), device_x.get(), "F32",
                                        count, 0.3));
    EXPECT_TRUE(device_sum.read<float>() == sum) << n;
  }
}

TEST_F(DeviceTensors, GgufBlocksOfEveryType) {
  std::mt19937 random(7);
  for (const math::GgmlTypeInfo& info : math::kGgmlTypes) {
    const std::size_t blocks = 515;
    std::vector<std::uint8_t> raw(blocks * info.block_bytes);
    for (std::uint8_t& byte : raw) {
      byte = static_cast<std::uint8_t>(random());
    }
    std::vector<float> expected(blocks * info.block_elements);
    for (std::size_t b = 0; b < blocks; ++b) {
      math::decode_ggml_block(info.type,
                              reinterpret_cast<const std::byte*>(raw.data()) + b * info.block_bytes,
                              expected.data() + b * info.block_elements);
    }
    const OnDevice source(raw);
    const OnDevice out(std::vector<float>(expected.size()));
    api::check(nibble_device_decode_ggml("cuda", nullptr, info.name, source.get(),
                                         static_cast<std::int64_t>(blocks), out.floats()));
    const auto* bits = reinterpret_cast<const std::uint8_t*>(expected.data());
    EXPECT_TRUE(without_nan_bits(out.read()) ==
                without_nan_bits({bits, bits + expected.size() * sizeof(float)}))
        << info.name;
  }
}

}  // namespace
}  // namespace nibble::test
