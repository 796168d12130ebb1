/* What networks UCX finds, for people to see. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uct/api/uct.h>

#include "comm/ucx_link.h"
#include "core/error.h"
#include "core/memory.h"

typedef mz_status (*device_fn)(void *arg, const uct_tl_resource_desc_t *device);

static mz_status visit_domain(uct_component_h component, const char *name, device_fn visit, void *arg)
{
    uct_md_config_t *config = NULL;
    uct_md_h domain = NULL;
    uct_tl_resource_desc_t *resources = NULL;
    unsigned n = 0;
    mz_status status = MZ_OK;
    if (uct_md_config_read(component, NULL, NULL, &config) != UCS_OK)
        return MZ_OK;
    ucs_status_t opened = uct_md_open(component, name, config, &domain);
    uct_config_release(config);
    if (opened != UCS_OK) /* hardware that is not there */
        return MZ_OK;
    if (uct_md_query_tl_resources(domain, &resources, &n) == UCS_OK) {
        for (unsigned i = 0; i < n && !status; i++)
            if (resources[i].dev_type == UCT_DEVICE_TYPE_NET)
                status = visit(arg, &resources[i]);
        uct_release_tl_resource_list(resources);
    }
    uct_md_close(domain);
    return status;
}

static mz_status visit_component(uct_component_h component, device_fn visit, void *arg)
{
    uct_component_attr_t count = {.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT};
    if (uct_component_query(component, &count) != UCS_OK || !count.md_resource_count)
        return MZ_OK;
    uct_component_attr_t domains = {.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES,
                                    .md_resources =
                                        mz_calloc(count.md_resource_count, sizeof *domains.md_resources)};
    mz_status status = domains.md_resources ? MZ_OK : MZ_ERR_MEMORY;
    if (!status && uct_component_query(component, &domains) == UCS_OK)
        for (unsigned i = 0; i < count.md_resource_count && !status; i++)
            status = visit_domain(component, domains.md_resources[i].md_name, visit, arg);
    mz_free(domains.md_resources);
    return status;
}

/* Calls visit for every pair of a network device and a transport. */
static mz_status visit_devices(device_fn visit, void *arg)
{
    uct_component_h *components = NULL;
    unsigned n = 0;
    mz_status status = mz_ucx_check(uct_query_components(&components, &n), "uct_query_components");
    if (status)
        return status;
    for (unsigned i = 0; i < n && !status; i++)
        status = visit_component(components[i], visit, arg);
    uct_release_component_list(components);
    return status;
}

/* Adds "device (transport)"; transports of one device stand in one bracket. */
static mz_status add_to_text(void *arg, const uct_tl_resource_desc_t *found)
{
    char **text = arg, *longer;
    char device[UCT_DEVICE_NAME_MAX + 3];
    snprintf(device, sizeof device, "%s (", found->dev_name);
    const char *known = strstr(*text, device);
    if (known) {
        int head = (int)(strchr(known, ')') - *text);
        longer = mz_strprintf("%.*s, %s%s", head, *text, found->tl_name, *text + head);
    } else {
        longer = mz_strprintf("%s%s%s%s)", *text, **text ? ", " : "", device, found->tl_name);
    }
    if (!longer)
        return MZ_ERR_MEMORY;
    mz_free(*text);
    *text = longer;
    return MZ_OK;
}

mz_status mz_ucx_devices(char **out)
{
    char *text = mz_strdup("");
    mz_status status = text ? visit_devices(add_to_text, &text) : MZ_ERR_MEMORY;
    if (status) {
        mz_free(text);
        return status;
    }
    *out = text;
    return MZ_OK;
}

/* UCP tells what an endpoint uses in words only: "lane[0]:  1:tcp/eth0.0 md[1] -> ...". */
static mz_status add_lane(char **text, const char *line)
{
    uct_tl_resource_desc_t found = {.dev_name = ""};
    const char *at = strstr(line, "lane[");
    at = at ? strchr(at, ':') : NULL;
    at = at ? strchr(at + 1, ':') : NULL;
    if (!at || sscanf(at + 1, "%15[^/ ]/%31[^ ]", found.tl_name, found.dev_name) != 2)
        return MZ_OK;
    char *path = strrchr(found.dev_name, '.'); /* the number of the path on that device */
    if (path)
        *path = '\0';
    char entry[UCT_TL_NAME_MAX + UCT_DEVICE_NAME_MAX + 4];
    snprintf(entry, sizeof entry, "%s (%s", found.dev_name, found.tl_name);
    return strstr(*text, entry) ? MZ_OK : add_to_text(text, &found);
}

void mz_ucx_link_devices(mz_ucx_link *link, char *out, size_t bytes)
{
    char *text = mz_strdup(""), *printed = NULL, *rest;
    size_t size = 0;
    FILE *file = text ? open_memstream(&printed, &size) : NULL;
    mz_ucx_link_enter(link);
    for (int r = 0; r < link->n_peers && file; r++)
        if (link->peers[r].endpoint)
            ucp_ep_print_info(link->peers[r].endpoint, file);
    mz_ucx_link_leave(link);
    if (file)
        fclose(file);
    for (char *line = printed ? strtok_r(printed, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
        if (add_lane(&text, line))
            break;
    snprintf(out, bytes, "%s", text ? text : "");
    free(printed);
    mz_free(text);
}

static mz_status note_other_than_tcp(void *arg, const uct_tl_resource_desc_t *found)
{
    bool *only_tcp = arg;
    *only_tcp = *only_tcp && strcmp(found->tl_name, "tcp") == 0;
    return MZ_OK;
}

mz_status mz_ucx_only_tcp(bool *only_tcp)
{
    *only_tcp = true;
    return visit_devices(note_other_than_tcp, only_tcp);
}

const char *mz_ucx_version(void)
{
    return ucp_get_version_string();
}
