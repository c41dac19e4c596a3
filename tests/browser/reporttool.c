/* Report and contact sheet of the folder of an experiment: reporttool DIR [MAX_PICTURE_BYTES] */

#include <stdio.h>
#include <stdlib.h>

#include "orchestrate/experiment/report.h"
#include "orchestrate/experiment/sheet.h"

int main(int argc, char **argv)
{
    lw_err err = { 0 };
    size_t max_bytes = LW_REPORT_MAX_PICTURES;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: reporttool DIR [MAX_PICTURE_BYTES]\n");
        return 2;
    }
    if (argc == 3)
        max_bytes = strtoul(argv[2], NULL, 10);
    if (lw_experiment_report_within(argv[1], max_bytes, &err) != LW_OK ||
        lw_experiment_sheet(argv[1], &err) != LW_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return 0;
}
