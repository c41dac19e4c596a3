#ifndef LW_ORCHESTRATE_EMBEDDED_H
#define LW_ORCHESTRATE_EMBEDDED_H

/* Files of the tree that the program carries, as text; embed.py makes them into C. */

extern const char lw_embedded_html_css[];   /* orchestrate/html.css: every page */
extern const char lw_embedded_report_css[]; /* orchestrate/experiment/report.css */
extern const char lw_embedded_report_js[];  /* orchestrate/experiment/report.js */

#endif
