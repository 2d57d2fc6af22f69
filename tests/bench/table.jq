# SPDX-License-Identifier: GPL-2.0-or-later
# The report of tests/bench/run as text.
def pad($n): tostring | . + (" " * ([$n - length, 0] | max));
def left($n): tostring | (" " * ([$n - length, 0] | max)) + .;
def short: if . == null then "-" elif . >= 100 or . <= -100 then round else (. * 100 | round / 100) end;
def figure: if .kind == "value" then "" elif .kind == "ratio" then "x \(.figure | short)" elif .kind == "times" then "1/\(.figure | short)" else "+ \(.figure | short)" end;
def goal: if .goal == null then "" elif .kind == "times" then ">= 1/\(.goal)" elif .kind == "ratio" then "<= x \(.goal)" elif .kind == "excess" then "<= + \(.goal)" else "<= \(.goal)" end;

(.machine | to_entries[] | "\(.key | pad(12)) \(.value)"),
"",
"\("ours" | left(9)) \("peer" | left(9))  \("unit" | pad(12)) \("figure" | pad(9)) \("quartiles" | pad(15)) \("goal" | pad(9)) \("" | pad(6)) what",
(.rows[] | "\(.ours | short | left(9)) \(.peer | short | left(9))  \(.unit | pad(12)) \(figure | pad(9)) \("\(.low | short) .. \(.high | short)" | pad(15)) \(goal | pad(9)) \(
	if .met == null then "" elif .met then "met" else "MISSED" end | pad(6)) \(.text)"),
"",
if (.stages | length) > 0 then "A start, step by step (medians):", (.stages[] | "  \(.ms | short | left(8)) ms  \(.stage)"), "" else empty end,
if .plan then "plan, ms by size:", (.plan.cases | group_by(.series)[] | "  \(.[0].series | pad(10)) \([.[] | "\(if .size == 0 then "" else "\(.size): " end)\(.median_ms * 1000 | round / 1000)"] | join("  "))"), "" else empty end,
(.not_measured[] | "not measured: \(.what): \(.why)")
