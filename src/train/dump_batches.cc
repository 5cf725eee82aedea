// SPDX-License-Identifier: Apache-2.0
#include "core/status.h"
#include "train/finetune.h"

namespace nibble::train {

void dump_batches(Setup& setup, const os::Path& path) {
  if (std::filesystem::exists(path)) {
    fail(StatusCode::kInvalidArgument, "{}: exists already; it is not overwritten", path.string());
  }
  os::FileWriter writer(path);
  for (std::int64_t number = 0; number < setup.plan().total_steps(); ++number) {
    const Step step = setup.plan().step(number);
    std::uint32_t micro_step = step.first_micro_step;
    for (const auto& batch : step.micro_batches) {
      for (const std::int64_t index : batch) {
        const text::Example& example = setup.train().examples[static_cast<std::size_t>(index)];
        formats::Json labels = formats::Json::array();
        for (std::size_t i = 0; i < example.ids.size(); ++i) {
          labels.push_back(example.is_target[i] != 0 ? example.ids[i] : -100);
        }
        const formats::Json row{{"step", number},
                                {"micro_step", micro_step},
                                {"input_ids", example.ids},
                                {"labels", std::move(labels)}};
        writer.write(row.dump() + "\n");
      }
      ++micro_step;
    }
  }
  writer.commit();
}

}  // namespace nibble::train
