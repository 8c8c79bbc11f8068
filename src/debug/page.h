// Made from page.html by the build, NUL-terminated.
#ifndef PMI_DEBUG_PAGE_H
#define PMI_DEBUG_PAGE_H

extern const unsigned char pmi_debug_page_html[];

#endif
