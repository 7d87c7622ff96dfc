// Each refusal of the safetensors parser, one by one, from handmade bytes; what it must accept; and headers
// made.
#include "safetensors.hpp"

#include <gtest/gtest.h>

#include <random>

#include "safetensors_bytes.hpp"
#include "utf8.hpp"

namespace plait {
namespace {

using testing_bytes::parse_file;
using testing_bytes::with_header;

/// The whole message of the refusal, or what was accepted.
std::string refusal(std::string const& file) {
  try {
    auto const header = parse_file(file);
    return "accepted " + std::to_string(header.tensors.size()) + " tensors";
  } catch (FileError const& error) {
    return error.what();
  }
}

/// A header with one tensor "a" whose fields are given as JSON.
std::string one_tensor(std::string const& dtype, std::string const& shape, std::string const& offsets) {
  return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

void expect_refused(std::string const& header, std::size_t data_bytes, std::string const& message) {
  EXPECT_EQ(refusal(with_header(header, data_bytes)), "f.safetensors: " + message) << header;
}

void expect_accepted(std::string const& header, std::size_t data_bytes, std::size_t tensors) {
  EXPECT_EQ(refusal(with_header(header, data_bytes)), "accepted " + std::to_string(tensors) + " tensors")
      << header;
}

std::string const numbers = "; accepted: 0 to 2^63 - 1";

TEST(SafetensorsRefusal, Number1FileUnder8Bytes) {
  EXPECT_EQ(refusal(""), "f.safetensors: 0 bytes long; a safetensors file has at least 8");
  EXPECT_EQ(refusal("1234567"), "f.safetensors: 7 bytes long; a safetensors file has at least 8");
}

TEST(SafetensorsRefusal, Number2HeaderOver100MB) {
  // 100,000,001 = 0x05f5e101, little-endian.
  EXPECT_EQ(
      refusal(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)),
      "f.safetensors: its first 8 bytes give a header of 100000001 bytes; at most 100000000 are accepted "
      "(is this a safetensors file?)");
  EXPECT_EQ(
      refusal(std::string(8, '\xff') + "{}"),
      "f.safetensors: its first 8 bytes give a header of 18446744073709551615 bytes; at most 100000000 are "
      "accepted (is this a safetensors file?)");
}

TEST(SafetensorsRefusal, Number3HeaderPassesTheEnd) {
  EXPECT_EQ(refusal(std::string("\x03\0\0\0\0\0\0\0{}", 10)),
            "f.safetensors: a header of 3 bytes passes the end of the file (10 bytes): truncated?");
  // The largest length that is not refused as such, 100,000,000: passes the end too.
  EXPECT_EQ(refusal(std::string("\x00\xe1\xf5\x05\0\0\0\0{}", 10)),
            "f.safetensors: a header of 100000000 bytes passes the end of the file (10 bytes): truncated?");
}

TEST(SafetensorsRefusal, Number4HeaderNotStartingWithABrace) {
  expect_refused("", 0, "the header is empty; expected \"{\"");
  expect_refused(" {}", 0, "the header starts with \" \"; expected \"{\"");
  expect_refused("[]", 0, "the header starts with \"[\"; expected \"{\"");
  expect_refused("\xef\xbb\xbf{}", 0, "the header starts with \"\\ufffd\"; expected \"{\"");
}

TEST(SafetensorsRefusal, Number5InvalidUtf8) {
  auto const with_name = [](std::string const& name) { return "{\"" + name + "\":1}"; };
  for (std::string const bad : {
           "\x80",              // continuation without a lead
           "\xc0\x80",          // overlong, 2 bytes
           "\xc1\xbf",          // overlong, 2 bytes
           "\xe0\x9f\xbf",      // overlong, 3 bytes
           "\xed\xa0\x80",      // surrogate U+D800
           "\xed\xbf\xbf",      // surrogate U+DFFF
           "\xf0\x8f\xbf\xbf",  // overlong, 4 bytes
           "\xf4\x90\x80\x80",  // past U+10FFFF
           "\xf5\x80\x80\x80",  // no such lead
           "\xff",              // never a byte of UTF-8
           "\xe2\x82",          // cut short by the quote
           "\xe2\x82g",         // third byte is no continuation
           "\xf0\x9f\x98g",     // fourth byte is no continuation
       }) {
    std::string const message = refusal(with_header(with_name(bad), 0));
    EXPECT_TRUE(message.starts_with("f.safetensors: invalid UTF-8 in the header at byte 2 (0x")) << message;
  }
  expect_refused("{}\xe2\x82", 0, "invalid UTF-8 in the header at byte 2 (0xe2)");
  EXPECT_EQ(first_invalid_utf8(std::string_view("\xe2\x82\xac").substr(0, 2)),
            0u);  // no byte past the end counts
  for (std::string const good : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                                 "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    std::string const message = refusal(with_header(with_name(good), 0));
    EXPECT_NE(message.find("is a number; expected an object"), std::string::npos) << message;
  }
}

TEST(SafetensorsRefusal, Number6InvalidJson) {
  auto const expect_json_error = [](std::string const& header, std::string const& part) {
    std::string const message = refusal(with_header(header, 0));
    EXPECT_TRUE(message.starts_with("f.safetensors: invalid JSON in the header at byte ")) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect_json_error("{", "unexpected end of input");
  expect_json_error("{}x", "expected end of input");
  expect_json_error("{}{}", "expected end of input");
  expect_json_error("{} /* no */", "invalid literal");
  expect_json_error("{\"a\":}", "unexpected '}'");
  expect_json_error("{'a':1}", "invalid literal");
  expect_json_error(R"({"__metadata__":{},})", "expected string literal");
  expect_json_error("{\"\\ud800\":1}", "surrogate");
  expect_json_error(one_tensor("\"U8\"", "[01]", "[0,1]"), "unexpected number literal");
  expect_json_error(one_tensor("\"U8\"", "[1e999]", "[0,1]"), "number overflow");
  expect_json_error(one_tensor("\"U8\"", "[NaN]", "[0,1]"), "invalid literal");
  // A parser that stops at a zero byte would not see what follows it.
  expect_json_error(std::string("{}\0", 3), "at byte 2: control character 0x00");
  expect_json_error(std::string("{\"a\0\":1}", 8), "at byte 3: control character 0x00");
  expect_json_error("{\"a\nb\":1}", "control character");
}

TEST(SafetensorsRefusal, Number6DeepNesting) {
  expect_refused(one_tensor("\"U8\"", "[[1]]", "[0,1]"), 1,
                 R"(tensor "a": "shape": holds an array: nested deeper than three levels)");
  expect_refused(one_tensor("\"U8\"", "[{}]", "[0,1]"), 1,
                 R"(tensor "a": "shape": holds an object: nested deeper than three levels)");
  // A million levels must neither recurse nor cost memory.
  std::string const deep(1'000'000, '[');
  expect_refused(R"({"a":{"shape":)" + deep, 0,
                 R"(tensor "a": "shape": holds an array: nested deeper than three levels)");
  expect_refused(R"({"a":)" + deep, 0,
                 R"(tensor "a": is an array; expected an object with dtype, shape and data_offsets)");
}

TEST(SafetensorsRefusal, Number7DuplicateKeys) {
  std::string const fields = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_refused("{\"a\":" + fields + ",\"a\":" + fields + "}", 0, R"(duplicate key "a")");
  expect_refused("{\"a\":" + fields + ",\"\\u0061\":" + fields + "}", 0, R"(duplicate key "a")");
  expect_refused(R"({"__metadata__":{},"__metadata__":{}})", 0, R"(duplicate key "__metadata__")");
  expect_refused(R"({"__metadata__":{"k":"1","k":"2"}})", 0, R"(__metadata__: "k": duplicate key)");
  expect_refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
                 R"(tensor "a": "dtype": duplicate key)");
}

TEST(SafetensorsRefusal, Number8MetadataNotStrings) {
  std::string const map = "; __metadata__ is a map from strings to strings";
  expect_refused(R"({"__metadata__":null})", 0, "__metadata__: is null" + map);
  expect_refused(R"({"__metadata__":"x"})", 0, "__metadata__: is a string" + map);
  expect_refused(R"({"__metadata__":[]})", 0, "__metadata__: is an array" + map);
  expect_refused(R"({"__metadata__":{"k":1}})", 0, R"(__metadata__: "k": is a number)" + map);
  expect_refused(R"({"__metadata__":{"k":-1}})", 0, R"(__metadata__: "k": is a number)" + map);
  expect_refused(R"({"__metadata__":{"k":1.5}})", 0, R"(__metadata__: "k": is a number)" + map);
  expect_refused(R"({"__metadata__":{"k":true}})", 0, R"(__metadata__: "k": is true)" + map);
  expect_refused(R"({"__metadata__":{"k":{}}})", 0, R"(__metadata__: "k": is an object)" + map);
  expect_refused(R"({"__metadata__":{"shape":[]}})", 0, R"(__metadata__: "shape": is an array)" + map);
}

TEST(SafetensorsRefusal, Number9Fields) {
  std::string const object = "; expected an object with dtype, shape and data_offsets";
  expect_refused(R"({"a":1})", 0, R"(tensor "a": is a number)" + object);
  expect_refused(R"({"a":null})", 0, R"(tensor "a": is null)" + object);
  expect_refused(R"({"a":["U8",[0],[0,0]]})", 0, R"(tensor "a": is an array)" + object);
  expect_refused(R"({"a":{}})", 0, R"(tensor "a": the field "dtype" is missing)");
  expect_refused(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})", 0,
                 R"(tensor "a": the field "shape" is missing)");
  expect_refused(R"({"a":{"dtype":"U8","shape":[0]}})", 0,
                 R"(tensor "a": the field "data_offsets" is missing)");
  expect_refused(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})", 0,
                 R"(tensor "a": "x": unknown field; accepted: dtype, shape, data_offsets)");
  expect_refused(one_tensor("8", "[0]", "[0,0]"), 0,
                 R"(tensor "a": "dtype": is a number; expected a string)");
  expect_refused(one_tensor("[\"U8\"]", "[0]", "[0,0]"), 0,
                 R"(tensor "a": "dtype": is an array; expected a string)");
  expect_refused(one_tensor("\"U8\"", "0", "[0,0]"), 0,
                 R"(tensor "a": "shape": is a number; expected an array of integers)");
  expect_refused(one_tensor("\"U8\"", "null", "[0,0]"), 0,
                 R"(tensor "a": "shape": is null; expected an array of integers)");
  expect_refused(one_tensor("\"U8\"", "[\"1\"]", "[0,1]"), 1,
                 R"(tensor "a": "shape": holds a string; expected integers)");
  expect_refused(one_tensor("\"U8\"", "[1]", "[0]"), 1,
                 R"(tensor "a": "data_offsets": has 1 numbers; expected two, [begin, end])");
  expect_refused(one_tensor("\"U8\"", "[1]", "[]"), 1,
                 R"(tensor "a": "data_offsets": has 0 numbers; expected two, [begin, end])");
  expect_refused(one_tensor("\"U8\"", "[1]", "[0,1,1]"), 1,
                 R"(tensor "a": "data_offsets": has more than two numbers; expected [begin, end])");
  expect_refused(one_tensor("\"U8\"", "[1]", "{\"begin\":0}"), 1,
                 R"(tensor "a": "data_offsets": is an object; expected an array of integers)");
}

TEST(SafetensorsRefusal, Number9UnknownDtype) {
  for (std::string const unknown : {"F128", "f32", "", "F32 "}) {
    std::string const message = refusal(with_header(one_tensor('"' + unknown + '"', "[0]", "[0,0]"), 0));
    EXPECT_EQ(
        message,
        "f.safetensors: tensor \"a\": \"dtype\": \"" + unknown +
            "\" is unknown; accepted: BOOL, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64, C64, "
            "F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F6_E2M3, F6_E3M2, F4");
  }
}

TEST(SafetensorsRefusal, Number10Integers) {
  std::string const shape = R"(tensor "a": "shape": )";
  expect_refused(one_tensor("\"U8\"", "[-1]", "[0,1]"), 1, shape + "-1 is negative" + numbers);
  expect_refused(one_tensor("\"U8\"", "[-0]", "[0,0]"), 0, shape + "-0 is negative" + numbers);
  expect_refused(one_tensor("\"U8\"", "[1.0]", "[0,1]"), 1, shape + "1.0 is not an integer" + numbers);
  expect_refused(one_tensor("\"U8\"", "[1.5]", "[0,1]"), 1, shape + "1.5 is not an integer" + numbers);
  expect_refused(one_tensor("\"U8\"", "[1e0]", "[0,1]"), 1, shape + "1e0 is not an integer" + numbers);
  expect_refused(one_tensor("\"U8\"", "[9223372036854775808]", "[0,1]"), 1,
                 shape + "9223372036854775808 is out of range" + numbers);
  expect_refused(one_tensor("\"U8\"", "[18446744073709551616]", "[0,0]"), 0,
                 shape + "18446744073709551616 is out of range" + numbers);
  expect_refused(one_tensor("\"U8\"", "[-99999999999999999999]", "[0,1]"), 1,
                 shape + "-99999999999999999999 is negative" + numbers);
  std::string const offsets = R"(tensor "a": "data_offsets": )";
  expect_refused(one_tensor("\"U8\"", "[1]", "[-1,0]"), 1, offsets + "-1 is negative" + numbers);
  expect_refused(one_tensor("\"U8\"", "[1]", "[0,1.0]"), 1, offsets + "1.0 is not an integer" + numbers);
  expect_refused(one_tensor("\"U8\"", "[1]", "[0,18446744073709551615]"), 1,
                 offsets + "18446744073709551615 is out of range" + numbers);
}

TEST(SafetensorsRefusal, Number11ShapeOverflow) {
  auto const elements = [](std::string const& shape) {
    return "tensor \"a\": the number of elements of shape " + shape + " passes 2^63 - 1";
  };
  // 2^32 · 2^32 wraps to 0, and so would fit an empty range.
  expect_refused(one_tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0,
                 elements("[4294967296, 4294967296]"));
  // 2^63 wraps to a negative count; (2^32 + 1)^2 to a small one, 2^33 + 1.
  expect_refused(one_tensor("\"U8\"", "[4294967296,2147483648]", "[0,0]"), 0,
                 elements("[4294967296, 2147483648]"));
  expect_refused(one_tensor("\"U8\"", "[4294967297,4294967297]", "[0,8589934593]"), 0,
                 elements("[4294967297, 4294967297]"));
  // The place of a zero does not matter: the strides overflow all the same.
  for (std::string const shape : {"[0, 4294967296, 4294967296]", "[4294967296, 0, 4294967296]"}) {
    expect_refused(one_tensor("\"F32\"", shape, "[0,0]"), 0, elements(shape));
  }
  // The elements can be counted, their bits can't: 2^62 · 4 bytes = 2^64 bytes, which wraps to 0.
  expect_refused(one_tensor("\"F32\"", "[4611686018427387904]", "[0,0]"), 0,
                 "tensor \"a\": shape [4611686018427387904] of F32 passes 2^64 - 1 bits");
}

TEST(SafetensorsRefusal, Number12BitsNotBytes) {
  expect_refused(one_tensor("\"F4\"", "[3]", "[0,2]"), 2,
                 "tensor \"a\": shape [3] of F4 is 12 bits, not a whole number of bytes");
  expect_refused(one_tensor("\"F6_E2M3\"", "[2,3]", "[0,5]"), 5,
                 "tensor \"a\": shape [2, 3] of F6_E2M3 is 36 bits, not a whole number of bytes");
}

TEST(SafetensorsRefusal, Number13EndBeforeBegin) {
  expect_refused(one_tensor("\"U8\"", "[1]", "[2,1]"), 2,
                 "tensor \"a\": data_offsets [2, 1] end before they begin");
}

TEST(SafetensorsRefusal, Number14SpanIsNotTheShape) {
  expect_refused(one_tensor("\"F32\"", "[2,3]", "[0,23]"), 23,
                 "tensor \"a\": data_offsets [0, 23] span 23 bytes, but shape [2, 3] of F32 takes 24");
  expect_refused(one_tensor("\"U8\"", "[0]", "[0,1]"), 1,
                 "tensor \"a\": data_offsets [0, 1] span 1 bytes, but shape [0] of U8 takes 0");
  expect_refused(one_tensor("\"BF16\"", "[]", "[0,0]"), 0,
                 "tensor \"a\": data_offsets [0, 0] span 0 bytes, but shape [] of BF16 takes 2");
}

/// Two U8 tensors at the given ranges.
std::string two_tensors(int a_begin, int a_end, int b_begin, int b_end) {
  auto const tensor = [](int begin, int end) {
    return R"({"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  return "{\"a\":" + tensor(a_begin, a_end) + ",\"b\":" + tensor(b_begin, b_end) + "}";
}

TEST(SafetensorsRefusal, Number15HolesAndOverlaps) {
  std::string const before = " (where the one before ends)";
  expect_refused(two_tensors(0, 2, 3, 5), 5,
                 "tensor \"b\": its data begin at byte 3, which leaves a hole from byte 2" + before);
  expect_refused(two_tensors(0, 2, 1, 4), 4,
                 "tensor \"b\": its data begin at byte 1, which leaves an overlap up to byte 2" + before);
  expect_refused(two_tensors(0, 2, 0, 2), 2,
                 "tensor \"b\": its data begin at byte 0, which leaves an overlap up to byte 2" + before);
  expect_refused(two_tensors(0, 4, 2, 2), 4,
                 "tensor \"b\": its data begin at byte 2, which leaves an overlap up to byte 4" + before);
  expect_refused(
      two_tensors(1, 2, 2, 4), 4,
      "tensor \"a\": its data begin at byte 1, which leaves a hole from byte 0 (the first tensor begins "
      "at 0)");
}

TEST(SafetensorsRefusal, Number16EndIsNotTheFilesEnd) {
  std::string const header = two_tensors(0, 2, 2, 4);
  expect_refused(header, 3, "the last tensor ends at data byte 4, but the file holds 3 bytes of data");
  expect_refused(header, 5, "the last tensor ends at data byte 4, but the file holds 5 bytes of data");
  expect_refused("{}", 1, "the last tensor ends at data byte 0, but the file holds 1 bytes of data");
}

TEST(Safetensors, MessagesShowLongAndOddNamesOnOneLine) {
  std::string const message = refusal(with_header("{\"a\\n\\u001b" + std::string(5000, 'x') + "\":1}", 0));
  EXPECT_LT(message.size(), 250u);
  EXPECT_NE(message.find("\"a\\n\\u001bxxx"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  expect_accepted("{}", 0, 0);
  expect_accepted("{}  \n\t\r ", 0, 0);
  expect_accepted(R"({"__metadata__":{}})", 0, 0);
  expect_accepted(one_tensor("\"F32\"", "[]", "[0,4]"), 4, 1);       // a scalar
  expect_accepted(one_tensor("\"F32\"", "[3,0,5]", "[0,0]"), 0, 1);  // an empty dimension
  expect_accepted(one_tensor("\"F4\"", "[0]", "[0,0]"), 0, 1);       // empty, below a byte
  expect_accepted(one_tensor("\"F4\"", "[2,3]", "[0,3]"), 3, 1);     // 24 bits
  expect_accepted(one_tensor("\"F6_E3M2\"", "[4]", "[0,3]"), 3, 1);  // 24 bits
  expect_accepted(one_tensor("\"U8\"", "[1152921504606846976,0]", "[0,0]"), 0, 1);
  expect_accepted(two_tensors(2, 5, 0, 2), 5, 2);  // data in another order than names
  expect_accepted(two_tensors(0, 2, 2, 2), 2, 2);  // empty at the end
  expect_accepted(two_tensors(0, 2, 0, 0), 2, 2);  // empty at the start
  expect_accepted(two_tensors(0, 0, 0, 0), 0, 2);
}

TEST(Safetensors, ReadsEveryField) {
  std::string const json =
      R"({"k":{"shape":[2,3],"data_offsets":[4,16],"dtype":"BF16"},"__metadata__":{"by":"A\u00e9","":""},)"
      R"("":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  SafetensorsHeader const header = parse_file(with_header(json, 16));
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0], (TensorInfo{"", FileDType::f32, {}, 0, 4}));
  EXPECT_EQ(header.tensors[1], (TensorInfo{"k", FileDType::bf16, {2, 3}, 4, 16}));
  EXPECT_EQ(header.metadata, (Metadata{{"by", "A\xc3\xa9"}, {"", ""}}));
}

TEST(Safetensors, DtypesThatAttentionTakes) {
  for (DType const type : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(compute_dtype(file_dtype(type)), type);
    EXPECT_EQ(size_bits(file_dtype(type)), 8 * size_bytes(type));
  }
  EXPECT_EQ(name(file_dtype(DType::bf16)), "BF16");
  EXPECT_EQ(compute_dtype(FileDType::f64), std::nullopt);
}

TEST(MakeHeader, LaysWideElementsFirstAndAligned) {
  std::vector<NewTensor> const tensors{{"mask", FileDType::u8, {3}},
                                       {"out", FileDType::bf16, {1, 3, 1, 1}},
                                       {"lse", FileDType::f32, {1, 1, 3}}};
  NewHeader const made = make_header(tensors, {{"k", "v"}}, "f.safetensors");
  EXPECT_EQ(made.bytes.size() % 8, 0u);
  ASSERT_EQ(made.header.tensors.size(), 3u);
  EXPECT_EQ(made.header.tensors[0], (TensorInfo{"lse", FileDType::f32, {1, 1, 3}, 0, 12}));
  EXPECT_EQ(made.header.tensors[1], (TensorInfo{"out", FileDType::bf16, {1, 3, 1, 1}, 12, 18}));
  EXPECT_EQ(made.header.tensors[2], (TensorInfo{"mask", FileDType::u8, {3}, 18, 21}));
  EXPECT_EQ(parse_file(made.bytes + std::string(21, '\0')), made.header);
}

TEST(MakeHeader, RefusesWhatCouldNotBeReadBack) {
  auto const message = [](std::vector<NewTensor> const& tensors,
                          Metadata const& metadata = {}) -> std::string {
    try {
      return make_header(tensors, metadata, "f.safetensors").bytes;
    } catch (FileError const& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message({{"a", FileDType::u8, {1}}, {"a", FileDType::u8, {1}}}),
            "f.safetensors: duplicate key \"a\"");
  EXPECT_EQ(
      message({{"__metadata__", FileDType::u8, {1}}}),
      "f.safetensors: __metadata__: \"shape\": is an array; __metadata__ is a map from strings to strings");
  EXPECT_EQ(message({{"\xff", FileDType::u8, {1}}}),
            "f.safetensors: invalid UTF-8 in the header at byte 2 (0xff)");
  EXPECT_EQ(message({}, {{"k", "\xff"}}), "f.safetensors: invalid UTF-8 in the header at byte 22 (0xff)");
  EXPECT_EQ(message({{"a", FileDType::u8, {-1}}}),
            "f.safetensors: tensor \"a\": the number of elements of shape [-1] passes 2^63 - 1");
}

TEST(MakeHeader, RandomHeadersComeBack) {
  std::mt19937_64 random(20240611);
  auto const below = [&](std::uint64_t n) { return random() % n; };
  for (int round = 0; round < 300; ++round) {
    std::vector<NewTensor> tensors;
    for (std::uint64_t i = below(6); i-- > 0;) {
      NewTensor tensor{"t\"\\\n" + std::to_string(i), static_cast<FileDType>(below(22)), {}};
      for (std::uint64_t axis = below(5); axis-- > 0;) tensor.shape.push_back(static_cast<Index>(below(5)));
      tensor.shape.push_back(8);  // whole bytes, for the types below a byte
      tensors.push_back(tensor);
    }
    Metadata metadata;
    for (std::uint64_t i = below(3); i-- > 0;) metadata["k\t" + std::to_string(i)] = "v\xe2\x82\xac\"";
    NewHeader const made = make_header(tensors, metadata, "f.safetensors");
    std::uint64_t const data = made.header.tensors.empty() ? 0 : made.header.tensors.back().end;
    SafetensorsHeader const back = parse_file(made.bytes + std::string(data, 'x'));
    ASSERT_EQ(back, made.header) << "round " << round << ": " << made.bytes;
    ASSERT_EQ(back.metadata, metadata);
    for (NewTensor const& tensor : tensors) {
      auto const found = std::ranges::find(back.tensors, tensor.name, &TensorInfo::name);
      ASSERT_NE(found, back.tensors.end());
      EXPECT_EQ(found->dtype, tensor.dtype);
      EXPECT_EQ(found->shape, tensor.shape);
    }
  }
}

}  // namespace
}  // namespace plait
