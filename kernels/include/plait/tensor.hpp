// Views of tensors in a device's memory. A view owns nothing; its strides are counted in elements.
#pragma once

#include <type_traits>

#include "plait/dtype.hpp"
#include "plait/slice.hpp"

namespace plait {

/// A tensor [batch, rows, heads, dim] whose last axis is contiguous. `Data` is `void` or `void const`.
template <class Data>
struct BasicTensorView {
  Data* data = nullptr;
  DType dtype = DType::f32;
  Index batch = 0;
  Index rows = 0;
  Index heads = 0;
  Index dim = 0;
  Index batch_stride = 0;
  Index row_stride = 0;
  Index head_stride = 0;

  /// Offset in elements of element (b, row, head, 0).
  [[nodiscard]] Index offset(Index b, Index row, Index head) const {
    return b * batch_stride + row * row_stride + head * head_stride;
  }
  /// Address of element (b, row, head, 0).
  [[nodiscard]] Data* at(Index b, Index row, Index head) const {
    using Byte = std::conditional_t<std::is_const_v<Data>, std::byte const, std::byte>;
    return static_cast<Byte*>(data) + offset(b, row, head) * static_cast<Index>(size_bytes(dtype));
  }
  /// The view's rows [begin, end), as a view.
  [[nodiscard]] BasicTensorView rows_of(Slice local) const {
    BasicTensorView part = *this;
    part.data = at(0, local.begin, 0);
    part.rows = local.size();
    return part;
  }
  /// The view's heads [begin, end), as a view.
  [[nodiscard]] BasicTensorView heads_of(Index begin, Index end) const {
    BasicTensorView part = *this;
    part.data = at(0, 0, begin);
    part.heads = end - begin;
    return part;
  }
  [[nodiscard]] operator BasicTensorView<void const>() const {
    return {data, dtype, batch, rows, heads, dim, batch_stride, row_stride, head_stride};
  }
};

using TensorView = BasicTensorView<void const>;
using MutableTensorView = BasicTensorView<void>;

/// A view of a dense [batch, rows, heads, dim] array.
template <class Data>
[[nodiscard]] BasicTensorView<Data> dense(Data* data, DType dtype, Index batch, Index rows, Index heads,
                                          Index dim) {
  return {data, dtype, batch, rows, heads, dim, rows * heads * dim, heads * dim, dim};
}

}  // namespace plait
