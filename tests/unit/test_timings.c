/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the time of a start goes. */
#include "tests/unit/programs.h"

/* Each line a step, the last one their sum. */
Test(timings, table_adds_up)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -qd --timings conf/demo.ini >$R/table && $G kill demo");
	EXPECT_SH(&p, 0, "cat $R/table; awk '/ ms$/ { if ($1 == \"all\") { all = $2; next } sum += $(NF - 1); n++ }"
			 " END { exit !(n > 10 && all > 0 && sum > all - 0.01 * n && sum < all + 0.01 * n) }' $R/table");
	EXPECT_SAYS(&p, "\nread the host ");
	EXPECT_SAYS(&p, "\nstart QEMU ");
	EXPECT_SAYS(&p, "\nrun ");
	place_end(&p);
}

Test(timings, in_the_log)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -dv conf/demo.ini && $G kill demo");
	EXPECT_SAYS(&p, "demo: started in ");
	EXPECT_SAYS(&p, ", connect ");
	place_end(&p);
}
