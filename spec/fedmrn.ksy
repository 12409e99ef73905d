# The bytes of FORMAT.md and ENVELOPE.md in the language of Kaitai Struct (https://kaitai.io): the compiler makes
# parsers in some dozen languages from it. Sections and numbers in `doc` and `doc-ref` are those of FORMAT.md, V-.. of
# ENVELOPE.md. A `size: 0` field whose name begins with `check` takes no bytes; it states a condition on the fields
# before it.
#
# Not stated here, because a structure does not show it: checksum and digest, equal names, the content of
# entropy-coded payloads, and whatever depends on the caller's schema, expectations and limits. A parser made from this
# file shows bytes; it is no replacement for a decoder that makes all checks of section 7.
meta:
  id: fedmrn
  title: Frames, schemas, partial sums and tallies of fedmrn, format 1.4
  file-extension: fmrn
  license: Apache-2.0
  ks-version: "0.11"
  encoding: UTF-8
  endian: le
  bit-endian: le
doc: |
  A frame, a partial sum, a tally or an envelope, told apart by its magic. A schema has no magic: its type is `schema`.
  The tensors of a partial sum or a tally can be parsed with its schema alone: types `sums` and `counts`. The types
  `coding1`, `coding4` and `coding5` show the parts of entropy-coded payloads of a tensor with a known number of elements.
seq:
  - id: message
    type:
      switch-on: magic
      cases:
        0x4e524d46: frame
        0x53524d46: partial_sum
        0x54524d46: tally
        0x45524d46: envelope
instances:
  magic:
    doc: The first four bytes, as a number; "FMRN", "FMRS", "FMRT" or "FMRE".
    pos: 0
    type: u4
    valid:
      any-of: [0x4e524d46, 0x53524d46, 0x54524d46, 0x45524d46]

enums:
  role:
    0: dense
    1: masked
  dtype:
    1: float32
    2: float64
    3: float16
    4: bfloat16
    5: int8
    6: int16
    7: int32
    8: int64
    9: uint8
    10: uint16
    11: uint32
    12: uint64
    13: bool
  distribution:
    1: uniform
    2: gaussian
    3: bernoulli
    4:
      id: grid
      doc: In partial sums alone, for tensors of kind 3 (8.1).
  kind:
    0: elements
    1: binary
    2: signed
    3: grid
  coding:
    0: raw
    1: rans
    2: float16
    3: bfloat16
    4: rans12
    5: rans14
  algorithm:
    1: hmac_sha256
    2: ed25519

types:
  schema:
    doc: A list of tensors, in a frame or on its own.
    doc-ref: FORMAT.md, 5.1
    seq:
      - id: count
        type: u4
      - id: tensors
        type: tensor
        repeat: expr
        repeat-expr: count
      - id: check_end
        doc: S-01, no bytes are left over.
        size: 0
        valid:
          expr: _io.eof

  tensor:
    doc-ref: FORMAT.md, 5.2
    seq:
      - id: name_length
        doc: S-02.
        type: u2
        valid:
          min: 1
      - id: name
        doc: S-02; UTF-8, different from those before it.
        type: str
        size: name_length
      - id: role
        doc: S-03.
        type: u1
        enum: role
        valid:
          in-enum: true
      - id: dtype
        doc: S-04.
        type: u1
        enum: dtype
        valid:
          in-enum: true
      - id: check_masked_dtype
        doc: S-05, masked tensors are float32.
        size: 0
        valid:
          expr: role != role::masked or dtype == dtype::float32
      - id: rank
        doc: S-06.
        type: u1
        valid:
          max: 32
      - id: shape
        type: dimension(_index)
        repeat: expr
        repeat-expr: rank
    instances:
      num_elements:
        doc: The product of the dimensions (1.5).
        value: "rank == 0 ? 1 : shape[rank - 1].elements.as<u8>"
      element_size:
        doc: Bytes of an element (5.3).
        value: >-
          dtype == dtype::float64 or dtype == dtype::int64 or dtype == dtype::uint64 ? 8
          : dtype == dtype::float32 or dtype == dtype::int32 or dtype == dtype::uint32 ? 4
          : dtype == dtype::int8 or dtype == dtype::uint8 or dtype == dtype::bool ? 1
          : 2
      is_float:
        value: >-
          dtype == dtype::float32 or dtype == dtype::float64 or dtype == dtype::float16 or dtype == dtype::bfloat16

  dimension:
    params:
      - id: index
        type: s4
    seq:
      - id: size
        doc: S-06, the product of the dimensions, each 0 counted as 1, is at most 2^48.
        type: u8
        valid:
          expr: _ <= 281474976710656 / before
    instances:
      before:
        value: "index == 0 ? 1 : _parent.shape[index - 1].bounded.as<u8>"
      bounded:
        value: "before * (size == 0 ? 1 : size)"
      elements:
        value: "(index == 0 ? 1 : _parent.shape[index - 1].elements.as<u8>) * size"

  frame:
    doc: One update for one schema.
    doc-ref: FORMAT.md, 6.1
    seq:
      - id: magic
        doc: F-02.
        contents: FMRN
      - id: major
        doc: F-03.
        type: u1
        valid: 1
      - id: minor
        doc: F-03.
        type: u1
        valid:
          max: 3
      - id: flags
        doc: F-04; bit 0 tells that the schema follows the header.
        type: u2
        valid:
          max: 1
      - id: seed
        type: u8
      - id: base_model
        doc: 0 if not given, or a model of zeros.
        type: u8
      - id: round
        doc: 0 if not given.
        type: u4
      - id: tensor_count
        type: u4
      - id: schema_digest
        doc: The first 16 bytes of the SHA-256 of the schema (5.4).
        size: 16
      - id: schema_length
        type: u4
        if: has_schema
      - id: schema
        type: schema
        size: schema_length
        if: has_schema
      - id: check_tensor_count
        doc: F-11, for an embedded schema.
        size: 0
        valid:
          expr: not has_schema or tensor_count == schema.count
      - id: table
        type: entry(_index)
        repeat: expr
        repeat-expr: tensor_count
      - id: check_minor
        doc: F-31, minor is the lowest one that has the kinds and codings of the table.
        size: 0
        valid:
          expr: "minor == (tensor_count == 0 ? 0 : table[tensor_count - 1].minor_so_far)"
      - id: payloads
        type: payload(table[_index])
        size: table[_index].length
        repeat: expr
        repeat-expr: tensor_count
      - id: checksum
        doc: CRC-32 of all bytes before it (6.6).
        type: u4
      - id: check_end
        doc: F-26.
        size: 0
        valid:
          expr: _io.eof
    instances:
      has_schema:
        value: (flags & 1) == 1

  entry:
    doc-ref: FORMAT.md, 6.4
    params:
      - id: index
        type: s4
    seq:
      - id: kind
        doc: F-16.
        type: u1
        enum: kind
        valid:
          expr: "_ == kind::elements or _ == kind::binary or _ == kind::signed or (_ == kind::grid and _parent.minor >= 3)"
      - id: check_kind
        doc: F-17, for an embedded schema.
        size: 0
        valid:
          expr: >-
            not _parent.has_schema
            or (kind == kind::grid ? _parent.schema.tensors[index].is_float
            : (kind == kind::elements) == (_parent.schema.tensors[index].role == role::dense))
      - id: type
        doc: F-18 and F-20; the distribution of a mask, else the dtype.
        type: u1
        valid:
          expr: "_ >= 1 and _ <= (is_mask ? 3 : kind == kind::grid ? 4 : 13)"
      - id: check_dtype
        doc: F-19, for an embedded schema.
        size: 0
        valid:
          expr: is_mask or not _parent.has_schema or dtype == _parent.schema.tensors[index].dtype
      - id: coding
        doc: F-21.
        type: u1
        enum: coding
        valid:
          expr: >-
            _ == coding::raw
            or (is_mask and _ == coding::rans and _parent.minor >= 1)
            or (is_mask and _ == coding::rans12 and _parent.minor >= 2)
            or (kind == kind::grid and _ == coding::rans14)
            or (kind == kind::elements and type == 1 and _parent.minor >= 1
            and (_ == coding::float16 or _ == coding::bfloat16))
      - id: reserved
        doc: F-22.
        type: u1
        valid: 0
      - id: length
        doc: F-23, for an embedded schema.
        type: u8
        valid:
          expr: >-
            not _parent.has_schema or (coding == coding::raw or coding == coding::float16 or coding == coding::bfloat16
            ? _ == raw_length : _ < raw_length and _ >= least_length)
      - id: scale
        doc: F-24 for masks; the bounds of the scale of each distribution (3.5).
        type: f4
        if: is_mask
        valid:
          expr: >-
            _ >= (type == 1 ? 1.9721522630525295e-31 : type == 2 ? 2.465190328815662e-32 : 1.1754943508222875e-38)
            and _ <= (type == 2 ? 4.253529586511731e+37 : 3.4028234663852886e+38)
      - id: step
        doc: F-24 for grids.
        type: step(type)
        if: kind == kind::grid
      - id: check_minor
        doc: Part of F-31.
        size: 0
        valid:
          expr: minor_so_far <= _parent.minor
    instances:
      is_mask:
        value: kind == kind::binary or kind == kind::signed
      dtype:
        doc: Of elements and grids.
        value: type
        enum: dtype
        if: not is_mask
      distribution:
        value: type
        enum: distribution
        if: is_mask
      num_elements:
        value: _parent.schema.tensors[index].num_elements
        if: _parent.has_schema
      num_blocks:
        value: (num_elements + 65535) / 65536
        if: _parent.has_schema
      raw_length:
        value: >-
          is_mask ? (num_elements + 7) / 8
          : kind == kind::grid ? 4 * num_elements
          : coding == coding::raw ? _parent.schema.tensors[index].element_size * num_elements
          : 2 * num_elements
        if: _parent.has_schema
      least_length:
        value: >-
          coding == coding::rans ? 16 + 34 * num_blocks
          : coding == coding::rans12 ? 6 * num_blocks - 1
          : 8 * num_blocks - 3
        if: _parent.has_schema
      needed_minor:
        value: "kind == kind::grid ? 3 : coding == coding::rans12 ? 2 : coding == coding::raw ? 0 : 1"
      minor_before:
        value: "index == 0 ? 0 : _parent.table[index - 1].minor_so_far.as<s4>"
      minor_so_far:
        value: "needed_minor > minor_before ? needed_minor : minor_before"

  step:
    doc: |
      The step of a grid, an f32: a power of two within the bounds of its dtype, seen as the fields of its bits. Its
      value is 2^log2.
    doc-ref: FORMAT.md, 6.12
    params:
      - id: dtype
        doc: 1 float32, 2 float64, 3 float16, 4 bfloat16.
        type: u1
    seq:
      - id: fraction
        doc: F-24 or P-11.
        type: b23
        valid: 0
      - id: exponent
        doc: F-24 or P-11.
        type: b8
        valid:
          expr: "_ >= (dtype == 3 ? 103 : 1) and _ <= (dtype == 3 ? 132 : dtype == 4 ? 247 : 231)"
      - id: sign
        doc: F-24 or P-11.
        type: b1
        valid: false
    instances:
      log2:
        value: exponent.as<s4> - 127

  payload:
    doc: The payload of a tensor. Those that are entropy-coded are bytes here; see `coding1`, `coding4` and `coding5`.
    doc-ref: FORMAT.md, 6.5
    params:
      - id: entry
        type: entry
    seq:
      - id: mask
        doc: Element i is bit i mod 8 of byte i div 8, the least significant first (4.1).
        type: u1
        repeat: eos
        if: entry.is_mask and entry.coding == coding::raw
      - id: check_padding
        doc: F-28, for an embedded schema.
        size: 0
        if: entry.is_mask and entry.coding == coding::raw and entry._parent.has_schema
        valid:
          expr: entry.num_elements % 8 == 0 or (mask[mask.size - 1] >> (entry.num_elements % 8)) == 0
      - id: integers
        doc: The integers of a grid; F-32, their bounds.
        type: s4
        repeat: eos
        if: entry.kind == kind::grid and entry.coding == coding::raw
        valid:
          expr: "_ <= largest and _ >= -largest"
      - id: elements
        type: >-
          element(entry.coding == coding::raw ? entry.dtype
          : entry.coding == coding::float16 ? dtype::float16 : dtype::bfloat16)
        repeat: eos
        if: entry.kind == kind::elements
      - id: coded
        size-eos: true
        if: entry.coding == coding::rans or entry.coding == coding::rans12 or entry.coding == coding::rans14
    instances:
      largest:
        value: "entry.type == 3 ? 2047 : entry.type == 4 ? 255 : 16777215"

  element:
    doc: An element of a dense tensor. float16 and bfloat16 are shown as the u16 of their bits.
    doc-ref: FORMAT.md, 5.3
    params:
      - id: dtype
        type: u1
        enum: dtype
    seq:
      - id: bits16
        doc: F-29, finite.
        type: u2
        if: dtype == dtype::float16 or dtype == dtype::bfloat16
        valid:
          expr: "dtype == dtype::float16 ? (_ & 0x7c00) != 0x7c00 : (_ & 0x7f80) != 0x7f80"
      - id: float32
        doc: F-29.
        type: f4
        if: dtype == dtype::float32
        valid:
          expr: _ - _ == 0
      - id: float64
        doc: F-29.
        type: f8
        if: dtype == dtype::float64
        valid:
          expr: _ - _ == 0
      - id: boolean
        doc: F-30.
        type: u1
        if: dtype == dtype::bool
        valid:
          max: 1
      - id: integer
        type:
          switch-on: dtype
          cases:
            dtype::int8: s1
            dtype::int16: s2
            dtype::int32: s4
            dtype::int64: s8
            dtype::uint8: u1
            dtype::uint16: u2
            dtype::uint32: u4
            dtype::uint64: u8
        if: dtype != dtype::bool

  coding1:
    doc: A mask in coding 1, of a tensor that is not empty; C-01 and C-02.
    doc-ref: FORMAT.md, 6.8
    params:
      - id: num_elements
        type: u8
    seq:
      - id: probabilities
        doc: P(0) to P(15), in units of 1/256.
        type: u1
        repeat: expr
        repeat-expr: 16
        valid:
          min: 1
      - id: counts
        doc: The number of words of each block.
        type: u2
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536
      - id: blocks
        type: block(8, counts[_index])
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536
      - id: check_end
        doc: C-01.
        size: 0
        valid:
          expr: _io.eof

  coding4:
    doc: A mask in coding 4, of a tensor that is not empty; C-05 to C-07.
    doc-ref: FORMAT.md, 6.11
    params:
      - id: num_elements
        type: u8
      - id: distribution
        type: u1
        enum: distribution
    seq:
      - id: first
        doc: C-05; k(0).
        type: u1
        valid:
          max: 78
      - id: differences
        doc: k(c) - k(c - 1) for c = 1 to 15.
        type: difference(_index)
        repeat: expr
        repeat-expr: "distribution == distribution::bernoulli ? 0 : 15"
      - id: padding
        doc: C-05.
        type: b1
        repeat: expr
        repeat-expr: "distribution == distribution::bernoulli ? 0 : (8 - differences[14].num_bits % 8) % 8"
        valid: false
      - id: check_differences
        doc: C-05, every k(c) is 0 .. 78.
        size: 0
        valid:
          expr: distribution == distribution::bernoulli or differences[14].in_range
      - id: counts
        doc: The number of words of each block but the last.
        type: u2
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536 - 1
      - id: blocks
        type: block(1, counts[_index])
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536 - 1
      - id: last_block
        type: block(1, (_io.size - _io.pos - 4) / 2)
      - id: check_end
        doc: C-06.
        size: 0
        valid:
          expr: _io.eof

  difference:
    params:
      - id: index
        type: s4
    seq:
      - id: negative
        type: b1
      - id: unary
        doc: Bits of 0, and one of 1.
        type: b1
        repeat: until
        repeat-until: _
    instances:
      value:
        value: "negative ? -unary.size : unary.size - 1"
      k:
        doc: k(index + 1).
        value: "(index == 0 ? _parent.first : _parent.differences[index - 1].k.as<s4>) + value"
      num_bits:
        doc: Of the differences up to this one.
        value: "(index == 0 ? 0 : _parent.differences[index - 1].num_bits.as<s4>) + 1 + unary.size"
      in_range:
        doc: Whether every k up to this one is 0 .. 78.
        value: "(index == 0 ? true : _parent.differences[index - 1].in_range.as<bool>) and k >= 0 and k <= 78"

  coding5:
    doc: Integers in coding 5, of a tensor that is not empty; C-10 to C-12. In a tally, they are c(i) - (n div 2).
    doc-ref: FORMAT.md, 6.14
    params:
      - id: num_elements
        type: u8
    seq:
      - id: last
        doc: C-10; the last symbol that occurs.
        type: u1
        valid:
          max: 214
      - id: frequencies
        doc: f(1) to f(last).
        type: frequency(_index)
        repeat: expr
        repeat-expr: last
      - id: padding
        doc: C-10.
        type: b1
        repeat: expr
        repeat-expr: "last == 0 ? 0 : (8 - frequencies[last - 1].num_bits % 8) % 8"
        valid: false
      - id: check_frequencies
        doc: C-10.
        size: 0
        valid:
          expr: last == 0 or (frequencies[last - 1].value > 0 and frequencies[last - 1].sum <= 16384)
      - id: counts
        doc: The number of words of each block but the last.
        type: u4
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536 - 1
      - id: blocks
        type: block(1, counts[_index])
        repeat: expr
        repeat-expr: (num_elements + 65535) / 65536 - 1
      - id: last_block
        type: block(1, (_io.size - _io.pos - 4) / 2)
      - id: check_end
        doc: C-11.
        size: 0
        valid:
          expr: _io.eof
    instances:
      first_frequency:
        doc: f(0).
        value: "16384 - (last == 0 ? 0 : frequencies[last - 1].sum)"

  frequency:
    doc: With v = f + 1 and k = bits(v) - 1, k bits of 0, a bit of 1, and the k low bits of v, the least significant first.
    params:
      - id: index
        type: s4
    seq:
      - id: unary
        doc: C-10; k bits of 0, and one of 1.
        type: b1
        repeat: until
        repeat-until: _
        valid:
          expr: _index <= 14
      - id: low
        type: low_bit(_index)
        repeat: expr
        repeat-expr: unary.size - 1
    instances:
      value:
        value: "(1 << (unary.size - 1)) + (unary.size == 1 ? 0 : low[unary.size - 2].sum) - 1"
      sum:
        value: "(index == 0 ? 0 : _parent.frequencies[index - 1].sum.as<s4>) + value"
      num_bits:
        doc: Of the frequencies up to this one.
        value: "(index == 0 ? 0 : _parent.frequencies[index - 1].num_bits.as<s4>) + 2 * unary.size - 1"

  low_bit:
    params:
      - id: index
        type: s4
    seq:
      - id: bit
        type: b1
    instances:
      sum:
        value: "(index == 0 ? 0 : _parent.low[index - 1].sum.as<s4>) + (bit ? 1 << index : 0)"

  block:
    doc: A block of a range coder.
    doc-ref: FORMAT.md, 6.8, 6.10, 6.13
    params:
      - id: num_states
        type: u1
      - id: count
        type: u4
    seq:
      - id: states
        doc: C-02, C-07, C-12.
        type: u4
        repeat: expr
        repeat-expr: num_states
        valid:
          min: 65536
      - id: words
        type: u2
        repeat: expr
        repeat-expr: count

  partial_sum:
    doc: The weighted sums of frames. Its tensors are bytes here; `sums` parses them with the schema.
    doc-ref: FORMAT.md, 8.5
    seq:
      - id: magic
        doc: P-02.
        contents: FMRS
      - id: major
        doc: P-03.
        type: u1
        valid: 1
      - id: minor
        doc: P-03.
        type: u1
        valid:
          max: 1
      - id: flags
        doc: P-04.
        type: u2
        valid: 0
      - id: weight
        doc: P-05.
        type: u8
        valid:
          min: 1
          max: 549755813887
      - id: base_model
        doc: That of every frame summed, or 0 if it was not checked.
        type: u8
      - id: round
        doc: That of every frame summed, or 0 if it was not checked.
        type: u4
      - id: tensor_count
        type: u4
      - id: schema_digest
        size: 16
      - id: num_frames
        doc: P-06; the field `frames`.
        type: u8
        valid:
          min: 1
          max: weight
      - id: tensors
        doc: A structure of the type `sums`.
        size: _io.size - 60
      - id: checksum
        type: u4

  sums:
    doc: The tensors of a partial sum.
    doc-ref: FORMAT.md, 8.5
    params:
      - id: partial
        type: partial_sum
      - id: schema
        type: schema
    seq:
      - id: check_tensor_count
        doc: P-08.
        size: 0
        valid:
          expr: partial.tensor_count == schema.count
      - id: tensors
        type: tensor_sums(_index, schema.tensors[_index])
        repeat: expr
        repeat-expr: schema.count
      - id: check_minor
        doc: P-16.
        size: 0
        valid:
          expr: (partial.minor == 1) == (schema.count > 0 and tensors[schema.count - 1].grid_so_far)
      - id: check_end
        doc: P-13.
        size: 0
        valid:
          expr: _io.eof

  tensor_sums:
    params:
      - id: index
        type: s4
      - id: tensor
        type: tensor
    seq:
      - id: masked
        type: masked_sums(_parent.partial, tensor.num_elements)
        if: tensor.role == role::masked
      - id: dense
        type: dense_sums(_parent.partial.weight, tensor)
        if: tensor.role == role::dense
      - id: check_grid
        doc: Part of P-16.
        size: 0
        valid:
          expr: not grid_so_far or _parent.partial.minor == 1
    instances:
      grid_before:
        value: "index == 0 ? false : _parent.tensors[index - 1].grid_so_far.as<bool>"
      grid_so_far:
        value: "tensor.role == role::masked and masked.distribution == distribution::grid ? true : grid_before"

  masked_sums:
    params:
      - id: partial
        type: partial_sum
      - id: num_elements
        type: u8
    seq:
      - id: distribution
        doc: P-09.
        type: u1
        enum: distribution
        valid:
          expr: >-
            _ == distribution::uniform or _ == distribution::gaussian or _ == distribution::bernoulli
            or (_ == distribution::grid and partial.minor >= 1)
      - id: reserved
        doc: P-10.
        contents: [0, 0, 0]
      - id: scale
        doc: P-11.
        type: f4
        if: distribution != distribution::grid
        valid:
          expr: >-
            _ >= (distribution == distribution::uniform ? 1.9721522630525295e-31
            : distribution == distribution::gaussian ? 2.465190328815662e-32 : 1.1754943508222875e-38)
            and _ <= (distribution == distribution::gaussian ? 4.253529586511731e+37 : 3.4028234663852886e+38)
      - id: step
        doc: P-11, for the distribution 4.
        type: step(1)
        if: distribution == distribution::grid
      - id: sums
        doc: P-15.
        type: s8
        repeat: expr
        repeat-expr: num_elements
        valid:
          expr: _ <= bound and _ >= -bound
    instances:
      bound:
        value: >-
          partial.weight.as<s8> * (distribution == distribution::bernoulli ? 1
          : distribution == distribution::gaussian ? 13291661 : 16777215)

  dense_sums:
    doc: The sums of a dense tensor, in a partial sum or a tally.
    doc-ref: FORMAT.md, 8.4
    params:
      - id: factor
        doc: The weight of the partial sum, or the number of frames of the tally.
        type: u8
      - id: tensor
        type: tensor
    seq:
      - id: num_rows
        doc: The field `rows`.
        type: u4
      - id: rows
        type: row(_index)
        repeat: expr
        repeat-expr: num_rows
    instances:
      num_limbs:
        doc: The largest number of rows (8.4).
        value: >-
          tensor.dtype == dtype::float64 ? 88 : tensor.dtype == dtype::float32 ? 12 : tensor.dtype == dtype::bfloat16 ? 11
          : tensor.dtype == dtype::float16 ? 2 : tensor.element_size == 8 ? 3 : tensor.element_size == 4 ? 2 : 1
      bound:
        value: factor.as<s8> * 16777215

  row:
    params:
      - id: index
        type: s4
    seq:
      - id: limb
        doc: P-12 or T-16.
        type: u4
        valid:
          expr: _ < _parent.num_limbs and (index == 0 or _ > _parent.rows[index - 1].limb)
      - id: limbs
        doc: P-15 or T-20.
        type: s8
        repeat: expr
        repeat-expr: _parent.tensor.num_elements
        valid:
          expr: _ <= _parent.bound and _ >= -_parent.bound
      - id: check_not_zero
        doc: P-15 or T-20, a row that is all 0 is absent.
        size: 0
        valid:
          expr: limbs.size > 0 and (limbs.min != 0 or limbs.max != 0)

  tally:
    doc: The counts of set bits of frames of one seed. Its tensors are bytes here; `counts` parses them with the schema.
    doc-ref: FORMAT.md, 8.6
    seq:
      - id: check_size
        doc: T-01.
        size: 0
        valid:
          expr: _io.size >= 64
      - id: magic
        doc: T-02.
        contents: FMRT
      - id: major
        doc: T-03.
        type: u1
        valid: 1
      - id: minor
        doc: T-03.
        type: u1
        valid: 0
      - id: flags
        doc: T-04.
        type: u2
        valid: 0
      - id: seed
        doc: That of every frame.
        type: u8
      - id: base_model
        doc: That of every frame, or 0 if it was not checked.
        type: u8
      - id: round
        doc: That of every frame, or 0 if it was not checked.
        type: u4
      - id: tensor_count
        type: u4
      - id: schema_digest
        size: 16
      - id: weight
        doc: That of each frame.
        type: u8
      - id: num_frames
        doc: T-05; the field `frames`.
        type: u4
        valid:
          min: 1
          max: 16777215
      - id: check_weight
        doc: T-06, weight times frames is at most 2^39 - 1.
        size: 0
        valid:
          expr: weight > 0 and weight <= 549755813887 / num_frames
      - id: tensors
        doc: A structure of the type `counts`.
        size: _io.size - 64
      - id: checksum
        type: u4
    instances:
      num_bits:
        doc: Of a count in coding 0, bits(n); the other instances find it in five steps.
        value: "steps4 + (num_frames >> steps4 >= 2 ? 2 : 1)"
      steps1:
        value: "num_frames >= 65536 ? 16 : 0"
      steps2:
        value: "steps1 + (num_frames >> steps1 >= 256 ? 8 : 0)"
      steps3:
        value: "steps2 + (num_frames >> steps2 >= 16 ? 4 : 0)"
      steps4:
        value: "steps3 + (num_frames >> steps3 >= 4 ? 2 : 0)"

  counts:
    doc: The tensors of a tally.
    doc-ref: FORMAT.md, 8.6
    params:
      - id: tally
        type: tally
      - id: schema
        type: schema
    seq:
      - id: check_tensor_count
        doc: T-08.
        size: 0
        valid:
          expr: tally.tensor_count == schema.count
      - id: tensors
        type: tensor_counts(schema.tensors[_index])
        repeat: expr
        repeat-expr: schema.count
      - id: check_end
        doc: T-17.
        size: 0
        valid:
          expr: _io.eof

  tensor_counts:
    params:
      - id: tensor
        type: tensor
    seq:
      - id: masked
        type: masked_counts(_parent.tally, tensor.num_elements)
        if: tensor.role == role::masked
      - id: dense
        type: dense_sums(_parent.tally.num_frames, tensor)
        if: tensor.role == role::dense

  masked_counts:
    params:
      - id: tally
        type: tally
      - id: num_elements
        type: u8
    seq:
      - id: kind
        doc: T-10.
        type: u1
        enum: kind
        valid:
          any-of: [kind::binary, kind::signed]
      - id: distribution
        doc: T-11.
        type: u1
        enum: distribution
        valid:
          any-of: [distribution::uniform, distribution::gaussian, distribution::bernoulli]
      - id: coding
        doc: T-12.
        type: u1
        enum: coding
        valid:
          any-of: [coding::raw, coding::rans14]
      - id: reserved
        doc: T-13.
        type: u1
        valid: 0
      - id: scale
        doc: T-14.
        type: f4
        valid:
          expr: >-
            _ >= (distribution == distribution::uniform ? 1.9721522630525295e-31
            : distribution == distribution::gaussian ? 2.465190328815662e-32 : 1.1754943508222875e-38)
            and _ <= (distribution == distribution::gaussian ? 4.253529586511731e+37 : 3.4028234663852886e+38)
      - id: length
        doc: T-15.
        type: u8
        valid:
          expr: "coding == coding::raw ? _ == raw_length : _ < raw_length and _ >= least_length"
      - id: raw
        type: raw_counts(num_elements, tally.num_bits, tally.num_frames)
        size: length
        if: coding == coding::raw
      - id: coded
        type: coding5(num_elements)
        size: length
        if: coding == coding::rans14
    instances:
      raw_length:
        value: (num_elements * tally.num_bits + 7) / 8
      least_length:
        value: 8 * ((num_elements + 65535) / 65536) - 3

  raw_counts:
    doc: Counts in coding 0.
    doc-ref: FORMAT.md, 8.6
    params:
      - id: num_elements
        type: u8
      - id: num_bits
        type: s4
      - id: num_frames
        type: u4
    seq:
      - id: counts
        doc: T-20, every count is 0 .. n.
        type: count(num_bits)
        repeat: expr
        repeat-expr: num_elements
        valid:
          expr: _.value <= num_frames
      - id: padding
        doc: T-19.
        type: b1
        repeat: expr
        repeat-expr: (8 - num_elements * num_bits % 8) % 8
        valid: false

  count:
    doc: A count, the least significant bit first.
    params:
      - id: num_bits
        type: s4
    seq:
      - id: digits
        type: digit(_index)
        repeat: expr
        repeat-expr: num_bits
    instances:
      value:
        value: digits[num_bits - 1].sum

  digit:
    params:
      - id: index
        type: s4
    seq:
      - id: bit
        type: b1
    instances:
      sum:
        value: "(index == 0 ? 0 : _parent.digits[index - 1].sum.as<s4>) + (bit ? 1 << index : 0)"

  envelope:
    doc: A frame or a partial sum with the signature of its sender; see ENVELOPE.md.
    doc-ref: ENVELOPE.md, 1
    seq:
      - id: magic
        doc: V-02.
        contents: FMRE
      - id: version
        doc: V-03.
        type: u1
        valid: 1
      - id: algorithm
        doc: V-04.
        type: u1
        enum: algorithm
        valid:
          in-enum: true
      - id: reserved
        doc: V-05.
        type: u2
        valid: 0
      - id: key_id
        size: 16
      - id: length
        type: u8
      - id: frame
        doc: A frame or a partial sum.
        size: length
      - id: signature
        size: "algorithm == algorithm::hmac_sha256 ? 32 : 64"
      - id: check_end
        doc: V-08.
        size: 0
        valid:
          expr: _io.eof
