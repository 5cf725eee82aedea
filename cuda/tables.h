// SPDX-License-Identifier: Apache-2.0
// What one optimizer has in a device's memory for its steps, and which launches a step consists of.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/array.h"
#include "cuda/optim/matrix.h"
#include "cuda/optim/plan.h"

namespace nibble::cuda {

// Consecutive chunks of tensors of one rule.
struct Launch {
  int rule;
  int format;                 // that all states have, or -1
  std::int64_t first, count;  // chunks
};

class Tables {
 public:
  Tables(backend::Device& device, std::vector<backend::DeviceTensor> params,
         const std::vector<backend::DeviceGroup>& groups);

  std::size_t param_count() const { return params_.size(); }
  int group_count() const { return group_count_; }
  const std::vector<Launch>& steps() const { return steps_; }
  const std::vector<Launch>& measures() const { return measures_; }
  const std::vector<Matrix>& matrices() const { return matrices_; }
  // What a step needs to know of the groups' hyper-parameters on the host.
  void set_iterations(const std::vector<backend::DeviceGroup>& groups);
  // The parameter of each chunk.
  const std::vector<std::uint32_t>& chunk_params() const { return chunk_params_; }
  std::int64_t trusted_count() const { return trusted_count_; }
  std::int64_t rank1_count() const { return rank1_count_; }
  std::int64_t leaf_count() const { return leaf_count_; }

  StepArgs args() const;
  const Leaf* leaves() const { return leaves_.as<Leaf>(); }
  backend::LeafSum* sums() const { return sums_.as<backend::LeafSum>(); }
  const std::uint32_t* trusted() const { return trusted_.as<std::uint32_t>(); }
  const std::uint32_t* rank1() const { return rank1_.as<std::uint32_t>(); }
  std::byte* workspace() const { return workspace_.as<std::byte>(); }

  static Group group_of(const backend::DeviceGroup& from);

 private:
  void make_tensors(backend::Device& device);
  void add_matrices(std::vector<Tensor>& tensors);
  void make_chunks(backend::Device& device);
  void add_matrix_chunks(std::vector<Chunk>& chunks);
  void make_leaves(backend::Device& device);
  void make_lists(backend::Device& device);
  void make_workspace(backend::Device& device);

  std::vector<backend::DeviceTensor> params_;
  std::vector<Launch> steps_, measures_;
  std::vector<Matrix> matrices_;
  std::vector<std::uint32_t> chunk_params_;
  std::int64_t leaf_count_ = 0, trusted_count_ = 0, rank1_count_ = 0;
  int group_count_ = 0;
  DeviceArray control_, groups_, tensors_, chunks_, leaves_, sums_, squares_, trusted_, rank1_,
      workspace_;
};

}  // namespace nibble::cuda
