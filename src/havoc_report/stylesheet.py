"""The look of a page: one style sheet, light and dark, for screens, telephones and paper."""

from __future__ import annotations

SERIES_COLOURS: tuple[tuple[str, str], ...] = (
    ("#0a6ca3", "#62b5e8"),  # blue
    ("#c4541a", "#f2935c"),  # vermilion
    ("#0b8664", "#45c49b"),  # bluish green
    ("#9c4a86", "#dc95c6"),  # reddish purple
    ("#a87806", "#e5b94e"),  # amber
    ("#4a8fc4", "#a3d0f0"),  # sky
    ("#7a4a2b", "#c9a183"),  # brown
    ("#737980", "#9aa2ab"),  # grey
)
"""(on light, on dark) of each series: the hues of Okabe & Ito 2008, which colour-blind readers can tell
apart, each dark or light enough to stand out by 3 : 1 (WCAG 2.2, 1.4.11)."""


def _variables(*, dark: bool) -> str:
    names = ("paper", "card", "ink", "muted", "line", "accent", "info", "warning", "danger")
    light_values = ("#fbfaf7", "#ffffff", "#22262c", "#5e646c", "#e3dfd6", "#0b5f73", "#eaf2f4", "#fbf1d9", "#fbe4df")
    dark_values = ("#15181c", "#1c2025", "#e7e4dd", "#a2a8b0", "#31363d", "#7cc4d4", "#1a2b31", "#33290f", "#431d17")
    values = dark_values if dark else light_values
    colours = [f"--{name}: {value};" for name, value in zip(names, values, strict=True)]
    colours += [f"--series-{number}: {pair[dark]};" for number, pair in enumerate(SERIES_COLOURS)]
    return " ".join(colours)


_RULES = """
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1.5rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans",
  sans-serif; }
.sheet { max-width: 46rem; margin: 0 auto; padding: 3.5rem 1.5rem 4rem; }
h1, h2, .lead { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, "Source Serif 4", Georgia,
  "Noto Serif", "Liberation Serif", serif; }
h1 { font-size: 2.5rem; line-height: 1.15; font-weight: 600; letter-spacing: -0.015em; margin: 0;
  overflow-wrap: anywhere; }
h2 { font-size: 1.6rem; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 1rem; }
p, ul { margin: 0 0 1rem; overflow-wrap: break-word; }
ul { padding-left: 1.2rem; } li { margin-bottom: 0.5rem; padding-left: 0.2rem; } li::marker { color: var(--muted); }
.kicker { margin: 0 0 0.6rem; font-size: 0.8rem; font-weight: 600; letter-spacing: 0.09em; text-transform: uppercase;
  color: var(--accent); }
.subtitle { margin: 0.7rem 0 0; color: var(--muted); overflow-wrap: anywhere; }
.lead { font-size: 1.25rem; line-height: 1.5; }
section { margin-top: 3.5rem; padding-top: 2rem; border-top: 1px solid var(--line); }
main > section:first-child { margin-top: 2rem; }
a { color: var(--accent); text-underline-offset: 0.2em; }
a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
nav { margin-top: 1.75rem; font-size: 0.875rem; }
nav ol { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; margin: 0; padding: 0; list-style: none; }
nav li { margin: 0; padding: 0; }
nav a { color: var(--muted); text-decoration: none; } nav a:hover { color: var(--accent);
  text-decoration: underline; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 1px; margin: 1.5rem 0;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts > div { padding: 1rem 1.15rem; min-width: 0; box-shadow: 0 0 0 1px var(--line); }
.facts.small { grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.facts dt { font-size: 0.8rem; color: var(--muted); }
.facts dd { margin: 0.15rem 0 0; font-size: 1.55rem; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts dd.detail { font-size: 0.82rem; line-height: 1.4; font-weight: 400; letter-spacing: 0; color: var(--muted); }
.facts.small dd { font-size: 0.95rem; font-weight: 500; letter-spacing: 0; }
.facts.small dd.detail { font-size: 0.82rem; font-weight: 400; }
.note { margin: 1.25rem 0; padding: 0.9rem 1.15rem; border-left: 4px solid var(--accent); border-radius: 0 8px 8px 0;
  background: var(--info); }
.note strong { display: block; } .note p { margin: 0; }
.note.warning { background: var(--warning); border-color: var(--series-4); }
.note.danger { background: var(--danger); border-color: var(--series-1); }
header .note { margin: 0 0 2rem; } header .note.danger strong { font-size: 1.35rem; letter-spacing: 0.06em; }
figure { margin: 1.75rem 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 0.6rem; font-size: 0.86rem; line-height: 1.5; color: var(--muted); }
.narrow { display: none; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 2.5rem; }
  .pair figure { margin-top: 0.5rem; }
.scroll { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.6rem; font-size: 0.86rem; line-height: 1.5; color: var(--muted); }
caption span { display: block; position: sticky; left: 0; width: max-content;
  max-width: min(43rem, calc(100vw - 3rem)); }
table.dense { font-size: 0.82rem; } .dense th, .dense td { padding-left: 0.4rem; padding-right: 0.4rem; }
.dense thead th { font-size: 0.76rem; }
th, td { padding: 0.45rem 0.7rem; vertical-align: baseline; text-align: left; }
th:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
thead th { vertical-align: bottom; font-size: 0.8rem; font-weight: 500; color: var(--muted);
  border-bottom: 1px solid var(--muted); }
tbody th { font-weight: 500; } tbody td, tbody th { border-bottom: 1px solid var(--line); }
tr.strong td, tr.strong th { font-weight: 700; }
.right { text-align: right; } td.right { white-space: nowrap; }
pre { margin: 0; padding: 1rem 1.15rem; border: 1px solid var(--line); border-radius: 10px; background: var(--card);
  font: 0.85rem/1.6 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  "Liberation Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; overflow: hidden; }
pre.code { margin: 1rem 0; }
.sample figcaption { margin: 0 0 0.4rem; }
.prompt { color: var(--accent); font-weight: 600; }
details { margin: 0; border-bottom: 1px solid var(--line); font-size: 0.92rem; }
:not(details) + details { border-top: 1px solid var(--line); margin-top: 1.25rem; }
details + :not(details) { margin-top: 1.75rem; }
summary { padding: 0.55rem 0; cursor: pointer; overflow-wrap: anywhere; } summary::marker { color: var(--accent); }
summary .aside { color: var(--muted); font-variant-numeric: tabular-nums; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
details > .inside { padding: 0.1rem 0 1rem 1.1rem; }
.inside > p { margin-bottom: 0.75rem; color: var(--muted); }
.excerpt { margin: 0.9rem 0 0; } .excerpt figcaption { margin: 0 0 0.35rem; overflow-wrap: anywhere; }
.excerpt pre { padding: 0.65rem 0.9rem; font-size: 0.8rem; max-height: 14rem; overflow-y: auto; }
footer { margin-top: 3.5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); font-size: 0.82rem;
  color: var(--muted); }
footer p { margin: 0; overflow-wrap: anywhere; }
@media (min-width: 70rem) {
  .sheet { display: grid; grid-template-columns: 11rem minmax(0, 46rem); column-gap: 3.5rem; max-width: 63.5rem; }
  header, main, footer { grid-column: 2; }
  nav { grid-column: 1; grid-row: 1 / span 3; margin-top: 0.2rem; }
  nav ol { display: block; position: sticky; top: 3.5rem; } nav li { margin-bottom: 0.55rem; line-height: 1.4; }
}
@media (max-width: 34rem) {
  body { font-size: 15.5px; } .sheet { padding: 2rem 1.1rem 3rem; }
  h1 { font-size: 1.9rem; } h2 { font-size: 1.4rem; } .lead { font-size: 1.13rem; }
  section { margin-top: 2.5rem; padding-top: 1.6rem; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); } .facts.small { grid-template-columns: minmax(0, 1fr); }
  .facts > div { padding: 0.8rem 0.9rem; } .facts dd { font-size: 1.3rem; }
  .wide { display: none; } .narrow { display: block; } .pair { display: block; } .pair figure { margin: 1.75rem 0; }
}
"""

_PRINT = """
@media print {
  body { font-size: 10.5pt; background: none; } nav { display: none; }
  .sheet { display: block; max-width: none; padding: 0; } section { margin-top: 1.6rem; padding-top: 1.2rem; }
  figure, .note, .facts > div, tr, pre { break-inside: avoid; } h2, caption, thead { break-after: avoid; }
  .wide { display: block; } .narrow { display: none; } .scroll { overflow: visible; }
  .note, .facts, .facts > div { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

CSS = (
    f":root {{ color-scheme: light dark; {_variables(dark=False)} }}\n"
    # `screen`: a dark screen still prints dark ink on white paper.
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(dark=True)} }} }}"
    f"{_RULES}{_PRINT}"
)
