// A small writer of SVG pictures. Coordinates are pixels, y grows downwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace plait {

struct Spot {
  double x = 0.0;
  double y = 0.0;
};

struct Pen {
  std::string colour = "#000000";
  double width = 1.0;
  std::string dashes = "";  ///< as stroke-dasharray: "6 4"; empty = solid
};

enum class Anchor : std::uint8_t { start, middle, end };

struct Lettering {
  double size = 13.0;
  std::string colour = "#222222";
  Anchor anchor = Anchor::start;
  bool bold = false;
  bool upwards = false;  ///< turned by 90° to the left
};

enum class Shape2D : std::uint8_t { circle, square, diamond, triangle, wedge, hexagon };
enum class Fill : std::uint8_t { filled, hollow };

class Svg {
 public:
  /// A white page. `title` is what screen readers and tooltips say.
  Svg(double width, double height, std::string_view title);

  void line(Spot from, Spot to, Pen const& pen);
  void path(std::span<Spot const> spots, Pen const& pen);
  void rectangle(Spot corner, double width, double height, std::string_view colour);
  void text(Spot at, std::string_view words, Lettering const& lettering = {});
  void marker(Spot at, Shape2D shape, std::string_view colour, Fill fill);

  /// The whole document. No more can be drawn after it.
  [[nodiscard]] std::string document() &&;

 private:
  std::string content_;
};

/// Text with the characters that XML reserves written out.
[[nodiscard]] std::string xml_escaped(std::string_view text);

/// About how wide text is, in pixels: sans-serif faces differ by a tenth.
[[nodiscard]] double text_width(std::string_view text, double size);

}  // namespace plait
