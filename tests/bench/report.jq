# SPDX-License-Identifier: GPL-2.0-or-later
# Lines of JSON from tests/bench/run, as an array, to the report.
# Between two values: as much of each as it is near to it.
def quantile($q): sort | if length == 0 then null else ((length - 1) * $q) as $at | ($at | floor) as $i | .[$i] + ((.[$i + 1] // .[$i]) - .[$i]) * ($at - $i) end;
def rounded: if . == null then null else . * 1000 | round / 1000 end;

[.[] | select(.sample)] as $samples
| def of($row; $case): [$samples[] | select(.sample == $row and .case == $case) | .v];
{
	schema: 1,
	machine: ([.[] | select(.fact) | {(.fact): .v}] | add),
	rows: [.[] | select(.compare) | . as $c
		| of(.compare; .ours) as $ours | of(.compare; .peer) as $peer
		# Round by round where there are as many of both; a peer that was measured once stands for all rounds.
		| [range($ours | length) | $ours[.] as $o | ($peer[.] // ($peer | quantile(0.5))) as $p
			| if $c.kind == "value" then $o elif $c.kind == "ratio" then $o / $p elif $c.kind == "times" then $p / $o else $o - $p end] as $figures
		| ($figures | quantile(0.5)) as $figure
		| {row: .compare, text, unit, kind, rounds: ($ours | length), ours: ($ours | quantile(0.5) | rounded), peer: ($peer | quantile(0.5) | rounded),
		   figure: ($figure | rounded), low: ($figures | quantile(0.25) | rounded), high: ($figures | quantile(0.75) | rounded), goal,
		   met: (if .goal == null or $figure == null then null elif .kind == "times" then $figure >= .goal else $figure <= .goal end)}],
	stages: [reduce ($samples[] | select(.sample == "stage")) as $s ([]; if any(.[]; . == $s.case) then . else . + [$s.case] end)
		| .[] | {stage: ., ms: (of("stage"; .) | quantile(0.5) | rounded)}],
	plan: ([.[] | select(.plan) | .plan] | first),
	not_measured: [.[] | select(.absent) | {what: .absent, why}]
}
