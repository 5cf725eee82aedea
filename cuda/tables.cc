// SPDX-License-Identifier: Apache-2.0
#include "cuda/tables.h"

#include <algorithm>
#include <map>
#include <utility>

#include "backend/matrix_scratch.h"

namespace nibble::cuda {
namespace {

constexpr const char* kOfTensors = "tables of tensors";
constexpr const char* kOfChunks = "tables of chunks";

template <class T>
std::int64_t size(const std::vector<T>& list) {
  return static_cast<std::int64_t>(list.size());
}

math::RuleKind kind_of(const backend::DeviceTensor& tensor) {
  return math::kRules[tensor.task.rule].kind;
}

// The format of all states that are kept; -1 if there is more than one.
int uniform_format(const backend::StepTask& task) {
  int format = -1;
  for (const backend::StateView& state : task.state) {
    if (state.data != nullptr) {
      if (format >= 0 && state.format != format) {
        return -1;
      }
      format = state.format;
    }
  }
  return format >= 0 ? format : math::find_format("fp32");
}

bool has_rank1(const backend::DeviceTensor& tensor) {
  return std::any_of(std::begin(tensor.task.state), std::end(tensor.task.state),
                     [](const backend::StateView& s) { return s.rank1.row != nullptr; });
}

bool has_trust_ratio(const backend::DeviceTensor& tensor) {
  return kind_of(tensor) == math::RuleKind::kTrustRatio;
}

// Sums of weights and of updates, by block and by range.
std::int64_t squares_of(const backend::DeviceTensor& tensor) {
  return 2 * (math::block_count(tensor.count, tensor.task.block) +
              math::block_count(tensor.count, tensor.range));
}

void add_chunks(std::uint32_t tensor, std::int64_t count, std::vector<Chunk>& chunks) {
  for (std::int64_t i = 0; i < math::block_count(count, kChunk); ++i) {
    chunks.push_back({tensor, static_cast<std::uint32_t>(i)});
  }
}

}  // namespace

Tables::Tables(backend::Device& device, std::vector<backend::DeviceTensor> params,
               const std::vector<backend::DeviceGroup>& groups)
    : params_(std::move(params)) {
  make_tensors(device);
  make_chunks(device);
  make_leaves(device);
  make_lists(device);
  make_workspace(device);
  std::vector<Group> table;
  for (const backend::DeviceGroup& group : groups) {
    table.push_back(group_of(group));
  }
  group_count_ = static_cast<int>(table.size());
  groups_ = upload(device, table, kOfTensors);
  control_ = upload(device, std::vector<Control>(1), "step control");
  set_iterations(groups);
}

StepArgs Tables::args() const {
  return {control_.as<Control>(), groups_.as<Group>(), tensors_.as<Tensor>(), chunks_.as<Chunk>()};
}

void Tables::make_tensors(backend::Device& device) {
  std::vector<Tensor> tensors(params_.size());
  std::int64_t doubles = 0;
  for (const backend::DeviceTensor& param : params_) {
    doubles += has_trust_ratio(param) ? squares_of(param) : 0;
  }
  squares_ = DeviceArray(device, static_cast<std::uint64_t>(doubles) * sizeof(double),
                         "sums of trust ratios");
  auto* next = squares_.as<double>();
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const backend::DeviceTensor& param = params_[i];
    tensors[i].task = param.task;
    tensors[i].count = param.count;
    tensors[i].group = param.group;
    tensors[i].range = param.range;
    tensors[i].rows = param.rows;
    if (has_trust_ratio(param)) {
      tensors[i].block_squares = next;
      tensors[i].range_squares = next + 2 * math::block_count(param.count, param.task.block);
      next += squares_of(param);
    }
  }
  add_matrices(tensors);
  tensors_ = upload(device, tensors, kOfTensors);
}

// A matrix rule's own passes are tensors of their own, behind those of the parameters.
void Tables::add_matrices(std::vector<Tensor>& tensors) {
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const backend::DeviceTensor& param = params_[i];
    if (math::is_element_rule(kind_of(param)) || param.count == 0) {
      continue;
    }
    Matrix matrix;
    matrix.param = param;
    matrix.tensor = static_cast<std::uint32_t>(i);
    matrix.derived = static_cast<std::uint32_t>(tensors.size());
    matrix.format = uniform_format(param.task);
    matrices_.push_back(matrix);
    Tensor derived = tensors[i];
    derived.is_derived = true;
    if (kind_of(param) == math::RuleKind::kFactored) {
      derived.task.state[1] = {};  // has had its own pass
    }
    tensors.insert(tensors.end(), kMatrixPasses, derived);
  }
}

// Chunks of element rules by rule and format, then those of each matrix.
void Tables::make_chunks(backend::Device& device) {
  std::map<std::pair<int, int>, std::vector<std::uint32_t>> kinds;
  for (std::size_t i = 0; i < params_.size(); ++i) {
    if (math::is_element_rule(kind_of(params_[i]))) {
      kinds[{params_[i].task.rule, uniform_format(params_[i].task)}].push_back(
          static_cast<std::uint32_t>(i));
    }
  }
  std::vector<Chunk> chunks;
  const auto add = [&](const auto& kind, const std::vector<std::uint32_t>& indices,
                       const auto& wanted, std::vector<Launch>& launches) {
    const std::int64_t first = size(chunks);
    for (const std::uint32_t index : indices) {
      if (wanted(params_[index])) {
        add_chunks(index, params_[index].count, chunks);
      }
    }
    if (size(chunks) > first) {
      launches.push_back({kind.first, kind.second, first, size(chunks) - first});
    }
  };
  for (const auto& [kind, indices] : kinds) {
    add(
        kind, indices, [](const auto&) { return true; }, steps_);
    add(
        kind, indices, [](const auto& p) { return has_rank1(p) || has_trust_ratio(p); }, measures_);
  }
  for (const Chunk& chunk : chunks) {
    chunk_params_.push_back(chunk.tensor);
  }
  add_matrix_chunks(chunks);
  chunks_ = upload(device, chunks, kOfChunks);
}

void Tables::add_matrix_chunks(std::vector<Chunk>& chunks) {
  for (Matrix& matrix : matrices_) {
    for (int pass = 0; pass < kMatrixPasses; ++pass) {
      matrix.first_chunk[pass] = size(chunks);
      add_chunks(matrix.derived + static_cast<std::uint32_t>(pass), matrix.param.count, chunks);
    }
    chunk_params_.resize(chunks.size(), matrix.tensor);
    matrix.chunks = size(chunks) - matrix.first_chunk[kMatrixPasses - 1];
  }
}

void Tables::make_leaves(backend::Device& device) {
  std::vector<Leaf> leaves;
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const std::int64_t count = math::block_count(params_[i].count, backend::kSumLeaf);
    for (std::int64_t leaf = 0; leaf < count; ++leaf) {
      leaves.push_back({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(leaf)});
    }
  }
  leaf_count_ = size(leaves);
  leaves_ = upload(device, leaves, kOfChunks);
  sums_ = DeviceArray(device, leaves.size() * sizeof(backend::LeafSum), "sums of gradients");
}

void Tables::make_lists(backend::Device& device) {
  std::vector<std::uint32_t> trusted;
  std::vector<std::uint32_t> rank1;
  for (std::size_t i = 0; i < params_.size(); ++i) {
    if (has_trust_ratio(params_[i])) {
      trusted.push_back(static_cast<std::uint32_t>(i));
    }
    if (has_rank1(params_[i])) {
      rank1.push_back(static_cast<std::uint32_t>(i));
    }
  }
  trusted_count_ = size(trusted);
  rank1_count_ = size(rank1);
  trusted_ = upload(device, trusted, kOfTensors);
  rank1_ = upload(device, rank1, kOfTensors);
}

void Tables::make_workspace(backend::Device& device) {
  std::uint64_t bytes = 0;
  for (const backend::DeviceTensor& p : params_) {
    bytes = std::max(bytes, backend::matrix_scratch_bytes(kind_of(p), p.rows, p.task.columns));
  }
  if (bytes > 0) {
    workspace_ = DeviceArray(device, bytes, "workspace of matrix rules");
  }
}

Group Tables::group_of(const backend::DeviceGroup& from) {
  Group group;
  group.rule = from.rule;
  std::copy(std::begin(from.hyper), std::end(from.hyper), std::begin(group.hyper));
  std::copy(std::begin(from.source), std::end(from.source), std::begin(group.source));
  return group;
}

void Tables::set_iterations(const std::vector<backend::DeviceGroup>& groups) {
  for (Matrix& matrix : matrices_) {
    const backend::DeviceGroup& group = groups[static_cast<std::size_t>(matrix.param.group)];
    matrix.iterations = static_cast<int>(group.hyper[math::Muon::kSteps]);
  }
}

}  // namespace nibble::cuda
