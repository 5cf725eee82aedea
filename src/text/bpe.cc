// SPDX-License-Identifier: Apache-2.0
#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace nibble::text {
namespace {

constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(std::size_t capacity)
    : slots_(std::bit_ceil(2 * capacity + 2), Slot{kEmpty, {}}) {}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  // The finaliser of splitmix64: ids are small and regular, the table needs all their bits mixed.
  std::uint64_t hash = pair;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9U;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBU;
  std::size_t slot = (hash ^ (hash >> 31)) & (slots_.size() - 1);
  while (slots_[slot].pair != kEmpty && slots_[slot].pair != pair) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

bool MergeTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t pair = pair_key(left, right);
  Slot& slot = slots_[slot_of(pair)];
  if (slot.pair == pair) {
    return false;
  }
  slot = {pair, merge};
  return true;
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0) {
    return nullptr;
  }
  const std::uint64_t pair = pair_key(left, right);
  const Slot& slot = slots_[slot_of(pair)];
  return slot.pair == pair ? &slot.merge : nullptr;
}

bool BpeEncoder::push(std::uint32_t left) {
  const Node& node = nodes_[left];
  const auto* merge =
      node.next < nodes_.size() ? merges_.find(node.id, nodes_[node.next].id) : nullptr;
  if (merge != nullptr) {
    heap_.push_back(std::uint64_t{merge->rank} << 32 | left);
  }
  return merge != nullptr;
}

std::uint64_t BpeEncoder::encode(std::string_view piece, std::uint32_t base,
                                 std::vector<Token>* out) {
  const auto size = static_cast<std::uint32_t>(piece.size());
  nodes_.resize(size);
  heap_.clear();
  for (std::uint32_t i = 0; i < size; ++i) {
    nodes_[i] = {byte_tokens_[static_cast<unsigned char>(piece[i])], i - 1, i + 1};
  }
  for (std::uint32_t i = 0; i + 1 < size; ++i) {
    push(i);
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto rank = static_cast<std::uint32_t>(heap_.back() >> 32);
    const auto left = static_cast<std::uint32_t>(heap_.back());
    heap_.pop_back();
    Node& node = nodes_[left];
    // An entry outlives its pair when a neighbour was merged first; equal rank is the equal pair.
    const auto* merge = node.next < size ? merges_.find(node.id, nodes_[node.next].id) : nullptr;
    if (merge == nullptr || merge->rank != rank) {
      continue;
    }
    Node& right = nodes_[node.next];
    node.id = merge->result;
    node.next = right.next;
    right.id = -1;
    if (node.next < size) {
      nodes_[node.next].previous = left;
    }
    if (push(left)) {
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }
    if (left != 0 && push(node.previous)) {
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }
  }
  std::uint64_t dropped = 0;
  for (std::uint32_t i = 0; i < size; i = nodes_[i].next) {
    if (nodes_[i].id < 0) {
      ++dropped;
    } else {
      out->push_back({nodes_[i].id, base + i, base + nodes_[i].next});
    }
  }
  return dropped;
}

}  // namespace nibble::text
