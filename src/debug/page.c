// The page for browsers, which the build puts into an array: see page.html.
#include <string.h>

#include "debug/page.h"
#include "debug/server.h"

#define PLACE "{{nonce}}"

void pmi_debug_page(const char *nonce, struct pmi_text *out)
{
    const char *at = (const char *)pmi_debug_page_html;
    for (const char *place = strstr(at, PLACE); place != NULL; place = strstr(at, PLACE)) {
        pmi_text_add_bytes(out, at, (size_t)(place - at));
        pmi_text_add(out, nonce);
        at = place + strlen(PLACE);
    }
    pmi_text_add(out, at);
}
