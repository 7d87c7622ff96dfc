#include "svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace plait {
namespace {

std::string_view anchor_name(Anchor anchor) {
  return anchor == Anchor::start ? "start" : anchor == Anchor::middle ? "middle" : "end";
}

std::string dash_attribute(Pen const& pen) {
  return pen.dashes.empty() ? "" : fmt::format(R"( stroke-dasharray="{}")", pen.dashes);
}

/// Corners of a regular polygon; the first one at `first_angle`, clockwise from the right.
std::vector<Spot> polygon(Spot centre, int corners, double radius, double first_angle) {
  std::vector<Spot> spots;
  for (int i = 0; i < corners; ++i) {
    double const angle = first_angle + 2.0 * std::numbers::pi * i / corners;
    spots.push_back({centre.x + radius * std::cos(angle), centre.y + radius * std::sin(angle)});
  }
  return spots;
}

std::string points(std::span<Spot const> spots) {
  std::string list;
  for (Spot const& spot : spots) {
    list += fmt::format("{}{:.2f},{:.2f}", list.empty() ? "" : " ", spot.x, spot.y);
  }
  return list;
}

}  // namespace

std::string xml_escaped(std::string_view text) {
  std::string escaped;
  for (char const c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

double text_width(std::string_view text, double size) {
  constexpr double mean_advance = 0.56;  // of the size, for lower-case text and digits
  auto const characters =
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80; });
  return mean_advance * size * static_cast<double>(characters);
}

Svg::Svg(double width, double height, std::string_view title)
    : content_(fmt::format(
          R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0:g}" height="{1:g}" viewBox="0 0 {0:g} {1:g}" role="img" font-family="Helvetica, Arial, 'Liberation Sans', sans-serif">
<title>{2}</title>
<rect width="{0:g}" height="{1:g}" fill="#ffffff"/>
)",
          width, height, xml_escaped(title))) {}

void Svg::line(Spot from, Spot to, Pen const& pen) {
  content_ += fmt::format(
      R"(<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" stroke="{}" stroke-width="{:g}"{}/>)"
      "\n",
      from.x, from.y, to.x, to.y, pen.colour, pen.width, dash_attribute(pen));
}

void Svg::path(std::span<Spot const> spots, Pen const& pen) {
  content_ += fmt::format(
      R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="{:g}" stroke-linejoin="round"{}/>)"
      "\n",
      points(spots), pen.colour, pen.width, dash_attribute(pen));
}

void Svg::rectangle(Spot corner, double width, double height, std::string_view colour) {
  content_ += fmt::format(R"(<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="{}"/>)"
                          "\n",
                          corner.x, corner.y, width, height, colour);
}

void Svg::text(Spot at, std::string_view words, Lettering const& lettering) {
  content_ += fmt::format(
      R"(<text x="{:.2f}" y="{:.2f}" font-size="{:g}" fill="{}" text-anchor="{}"{}{}>{}</text>)"
      "\n",
      at.x, at.y, lettering.size, lettering.colour, anchor_name(lettering.anchor),
      lettering.bold ? R"( font-weight="bold")" : "",
      lettering.upwards ? fmt::format(R"svg( transform="rotate(-90 {:.2f} {:.2f})")svg", at.x, at.y) : "",
      xml_escaped(words));
}

void Svg::marker(Spot at, Shape2D shape, std::string_view colour, Fill fill) {
  constexpr double radius = 4.5;
  constexpr double pi = std::numbers::pi;
  std::string const paint = fmt::format(R"(fill="{}" stroke="{}" stroke-width="1.8")",
                                        fill == Fill::filled ? colour : "#ffffff", colour);
  std::vector<Spot> corners;
  switch (shape) {
    case Shape2D::circle:
      content_ += fmt::format(R"(<circle cx="{:.2f}" cy="{:.2f}" r="{:g}" {}/>)"
                              "\n",
                              at.x, at.y, radius, paint);
      return;
    case Shape2D::square:
      corners = polygon(at, 4, radius * 1.2, pi / 4);
      break;
    case Shape2D::diamond:
      corners = polygon(at, 4, radius * 1.3, 0);
      break;
    case Shape2D::triangle:
      corners = polygon(at, 3, radius * 1.35, -pi / 2);
      break;
    case Shape2D::wedge:
      corners = polygon(at, 3, radius * 1.35, pi / 2);
      break;
    case Shape2D::hexagon:
      corners = polygon(at, 6, radius * 1.15, 0);
      break;
  }
  content_ += fmt::format(R"(<polygon points="{}" {}/>)"
                          "\n",
                          points(corners), paint);
}

std::string Svg::document() && {
  return std::move(content_) + "</svg>\n";
}

}  // namespace plait
