/*
 * The report of an experiment, in the browser. report.h says what the page holds before this runs.
 * From there on:
 *
 *   model     cells by their place in the grid, what each is compared with, what is common to all
 *   state     what the reader has chosen; every change ends in refresh()
 *   sections  facts, toolbar, grid, measures, viewer: each builds its elements once or anew
 *
 * Text of strangers becomes text nodes and attribute values only: there is no innerHTML here, and
 * the page's policy runs no other script.
 */
"use strict";

(() => {
    /* ---- small helpers ---- */

    /* An element: h("p", {class: "x", onclick: f}, "text", child). Null children are left out. */
    function h(tag, attributes, ...children) {
        const e = document.createElement(tag);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (value === null || value === undefined || value === false)
                continue;
            if (key.startsWith("on"))
                e.addEventListener(key.slice(2), value);
            else if (value === true)
                e.setAttribute(key, "");
            else
                e.setAttribute(key, value);
        }
        for (const child of children.flat())
            if (child !== null && child !== undefined)
                e.append(child);
        return e;
    }

    function options(select, entries, chosen) {
        select.replaceChildren(...entries.map(([value, text]) =>
            h("option", { value, selected: String(value) === String(chosen) }, text)));
        return select;
    }

    const plural = (n, one, many) => `${n} ${n === 1 ? one : many || one + "s"}`;

    function megabytes(bytes) {
        if (bytes < 1 << 20)
            return `${Math.max(1, Math.round(bytes / 1024))} KiB`;
        return `${(bytes / (1 << 20)).toFixed(1)} MiB`;
    }

    function duration(seconds) {
        if (seconds < 60)
            return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
        const minutes = Math.round(seconds / 60);
        return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    }

    /* Four digits that count; what is infinite is said in words by whoever asks. */
    function number(v) {
        if (typeof v !== "number" || !Number.isFinite(v))
            return "";
        if (Number.isInteger(v))
            return String(v);
        return Math.abs(v) >= 1000 ? v.toFixed(0) : String(Number(v.toPrecision(4)));
    }

    function text(value) {
        if (value === null || value === undefined)
            return "";
        return typeof value === "object" ? JSON.stringify(value) : String(value);
    }

    /* ---- the model ---- */

    const results = JSON.parse(document.getElementById("results").textContent);
    const page = results.page;
    const axes = results.axes.map(a => ({
        name: a.name,
        title: a.title || a.name,
        values: a.values,
        index: new Map(a.values.map((v, i) => [v, i])),
    }));
    const sources = new Map();
    for (const img of document.getElementById("pictures").content.querySelectorAll("img"))
        sources.set(img.dataset.id, img.getAttribute("src"));

    const cells = results.cells.map((c, i) => ({
        id: c.id,
        number: i,
        coords: axes.map(a => a.index.get(c.at[a.name])),
        settings: c.settings || {},
        status: c.status === "done" && !sources.has(c.id) ? "failed" : c.status,
        error: c.error || "",
        file: `cells/${c.id}.png`,
        width: c.width,
        height: c.height,
        digest: c.pixels_digest,
        measures: Object.assign({}, c.measures,
            typeof c.n_tokens === "number" ? { n_tokens: c.n_tokens } : {},
            typeof c.seconds === "number" ? { seconds: c.seconds } : {}),
        searched: [...Object.values(c.at), text((c.settings || {}).prompt)].join("\n").toLowerCase(),
    }));
    const byCoords = new Map(cells.map(c => [c.coords.join(), c]));
    const cellAt = coords => byCoords.get(coords.join());
    const label = c => axes.map((a, i) => `${a.title} ${a.values[c.coords[i]]}`).join(", ");

    /* The place that a cell is compared with: its own, but for the axes that the baseline names. */
    const baseline = axes.map(a => {
        const v = results.baseline ? results.baseline[a.name] : undefined;
        return a.index.has(v) ? a.index.get(v) : -1;
    });
    const hasBaseline = baseline.some(i => i >= 0);
    const baselineCoords = coords => coords.map((c, i) => (baseline[i] >= 0 ? baseline[i] : c));
    function isBaseline(c) {
        return hasBaseline && baseline.every((b, i) => b < 0 || b === c.coords[i]);
    }
    function differs(c) {
        const other = hasBaseline && cellAt(baselineCoords(c.coords));
        return Boolean(other) && c.status === "done" && other.status === "done" &&
            c.digest !== other.digest;
    }

    /* Settings that every cell has alike, and the others. */
    const common = new Map();
    if (cells.length > 0)
        for (const [key, value] of Object.entries(cells[0].settings))
            if (cells.every(c => Object.hasOwn(c.settings, key) &&
                    text(c.settings[key]) === text(value)))
                common.set(key, value);

    /* What is known of measures; others are shown under their own names. */
    const ABOUT = new Map([
        ["luminance", ["Luminance", "mean of the picture's luminance, 0 to 1"]],
        ["contrast", ["Contrast", "standard deviation of the luminance, 0 to 1"]],
        ["colourfulness", ["Colourfulness", "Hasler and Suesstrunk 2003, 0 for grey"]],
        ["sharpness", ["Sharpness", "variance of the Laplacian of the luminance"]],
        ["psnr_db", ["PSNR, dB", "against the baseline; pictures that are equal do not count"]],
        ["ssim", ["SSIM", "against the baseline; 1 when equal"]],
        ["mean_abs", ["Mean difference", "against the baseline, absolute, of 255"]],
        ["n_tokens", ["Tokens", "of the formatted text"]],
        ["seconds", ["Seconds", "that the cell took"]],
    ]);
    const title = key => (ABOUT.has(key) ? ABOUT.get(key)[0] : key);
    const found = new Set(cells.flatMap(c => Object.keys(c.measures)));
    const measures = [...ABOUT.keys()].filter(k => found.has(k))
        .concat([...found].filter(k => !ABOUT.has(k)).sort());

    function measureText(c, key) {
        if (!Object.hasOwn(c.measures, key))
            return "";
        if (key === "psnr_db" && c.measures[key] === null)
            return "equal";
        return number(c.measures[key]);
    }

    /* ---- what the reader has chosen ---- */

    const NONE = -1;
    const widest = cells.reduce((w, c) => Math.max(w, c.width || 0), 0) || 64;
    const first = {
        rows: axes.length > 1 ? 0 : NONE,
        columns: axes.length > 1 ? 1 : 0,
        size: Math.min(256, Math.max(128, widest)),
    };
    if (first.size * axes[first.columns].values.length > 1200)
        first.size = Math.max(64, Math.floor(1200 / axes[first.columns].values.length / 8) * 8);
    const state = {
        ...first,
        caption: "",
        search: "",
        only: "all",
        shown: axes.map(a => a.values.map(() => true)),
    };

    function visible(c) {
        if (!c.coords.every((v, i) => state.shown[i][v]))
            return false;
        if (state.only === "failed" && c.status === "done")
            return false;
        if (state.only === "differs" && !differs(c))
            return false;
        return state.search.toLowerCase().split(/\s+/).every(w => c.searched.includes(w));
    }

    /* ---- facts ---- */

    function download(name, type, content) {
        const url = URL.createObjectURL(new Blob([content], { type }));
        return h("a", { class: "button", href: url, download: name }, name.split("-").pop());
    }

    function facts() {
        const n = { done: 0, failed: 0, missing: 0 };
        let seconds = 0;
        for (const c of cells) {
            n[c.status]++;
            seconds += c.measures.seconds || 0;
        }
        const original = { ...results };
        delete original.page;
        const parts = [
            plural(cells.length, "cell"),
            n.done === cells.length ? "all done" : `${n.done} done`,
            n.failed ? h("span", { class: "bad" }, `${n.failed} failed`) : null,
            n.missing ? `${n.missing} missing` : null,
            seconds ? duration(seconds) : null,
            `pictures ${megabytes(page.embedded)}`,
            results.version ? `latentwire ${results.version}` : null,
        ].filter(p => p !== null);
        return [
            h("div", { class: "facts" },
                h("span", { class: "mono" }, results.name),
                parts.map(p => h("span", {}, p)),
                h("span", { class: "downloads" }, "Download",
                    page.csv === null ? null :
                        download(`${results.name}-results.csv`, "text/csv", page.csv),
                    download(`${results.name}-results.json`, "application/json",
                        JSON.stringify(original, null, 2)))),
            page.thumbnail ? h("p", { class: "note", id: "thumbnails" },
                `The pictures take ${megabytes(page.bytes)}. This page holds smaller ones, at most ` +
                `${page.thumbnail} pixels on a side; the full ones are in the folder cells/ beside ` +
                "it. Differences are those of the smaller pictures.") : null,
        ];
    }

    function about() {
        const sections = [];
        if (common.size > 0)
            sections.push(h("section", {}, h("h3", {}, "Settings common to all cells"),
                settingsTable([...common], null)));
        if (page.made_by.length > 0) {
            const head = ["Stage", "Model", "Weights", "Back end", "Precision", "Cells"];
            sections.push(h("section", {}, h("h3", {}, "Made by"),
                h("table", { class: "compact" },
                    h("thead", {}, h("tr", {}, head.map(t => h("th", { scope: "col" }, t)))),
                    h("tbody", {}, page.made_by.map(s => h("tr", {},
                        h("th", { scope: "row" }, s.op), h("td", {}, text(s.model_id)),
                        h("td", { class: "mono", title: text(s.weights_digest) },
                            text(s.weights_digest).slice(0, 12)),
                        h("td", {}, text(s.backend)), h("td", {}, text(s.precision)),
                        h("td", { class: "number" }, text(s.cells)))))),
                page.versions.length > 0 ? h("p", { class: "muted small" },
                    `latentwire ${page.versions.join(", ")}`) : null));
        }
        if (sections.length === 0)
            return null;
        const names = [common.size ? plural(common.size, "common setting") : "",
            page.made_by.length ? plural(page.made_by.length, "stage") : ""].filter(Boolean);
        return h("details", { class: "about" },
            h("summary", {}, "How these pictures were made",
                h("span", { class: "muted" }, ` (${names.join(", ")})`)),
            h("div", { class: "about-body" }, sections));
    }

    function settingsTable(entries, marked) {
        return h("table", { class: "compact settings" }, h("tbody", {}, entries.map(([key, value]) =>
            h("tr", { class: marked && marked.has(key) ? "marked" : null },
                h("th", { scope: "row" }, key), h("td", {}, text(value) === "" ?
                    h("span", { class: "muted" }, "empty") : text(value))))));
    }

    /* ---- toolbar ---- */

    const count = h("output", { class: "count", id: "count" });
    const filterNames = [];

    function field(name, control) {
        return h("label", { class: "field" }, h("span", {}, name), control);
    }

    /* A drop-down with a box for every value of an axis. */
    function axisFilter(axis, i) {
        const name = h("span", {});
        const boxes = axis.values.map((v, k) => h("input", {
            type: "checkbox", checked: true, "data-axis": axis.name, "data-value": v,
            onchange: e => {
                state.shown[i][k] = e.target.checked;
                refresh();
            },
        }));
        const set = on => {
            boxes.forEach((b, k) => {
                b.checked = on;
                state.shown[i][k] = on;
            });
            refresh();
        };
        filterNames.push(() => {
            const n = state.shown[i].filter(Boolean).length;
            name.textContent = n === axis.values.length ? `all ${n}` : `${n} of ${axis.values.length}`;
            details.classList.toggle("active", n !== axis.values.length);
            boxes.forEach((b, k) => (b.checked = state.shown[i][k]));
        });
        const details = h("details", { class: "filter", "data-axis": axis.name },
            h("summary", {}, h("span", { class: "clip" }, axis.title), ": ", name),
            h("div", { class: "panel", role: "group", "aria-label": `Values of ${axis.title}` },
                h("div", { class: "panel-head" },
                    h("button", { type: "button", onclick: () => set(true) }, "All"),
                    h("button", { type: "button", onclick: () => set(false) }, "None")),
                axis.values.map((v, k) => h("label", {}, boxes[k],
                    h("span", {}, v === "" ? "(empty)" : v)))));
        return details;
    }

    function toolbar() {
        const axisEntries = axes.map((a, i) => [i, a.title]);
        const rows = h("select", { id: "rows", onchange: e => choose("rows", Number(e.target.value)) });
        const columns = h("select",
            { id: "columns", onchange: e => choose("columns", Number(e.target.value)) });
        const sizeText = h("output", {}, `${state.size} px`);
        const size = h("input", {
            type: "range", id: "size", min: 32, max: 512, step: 8, value: state.size,
            oninput: e => {
                state.size = Number(e.target.value);
                sizeText.textContent = `${state.size} px`;
                applySize();
            },
        });
        const search = h("input", {
            type: "search", id: "search", placeholder: "words in a prompt or a value",
            oninput: e => {
                state.search = e.target.value;
                refresh();
            },
        });
        const only = options(h("select", {
            id: "only",
            onchange: e => {
                state.only = e.target.value;
                refresh();
            },
        }), [["all", "all cells"], ["failed", "failed or missing"],
            ...(hasBaseline ? [["differs", "different from the baseline"]] : [])], "all");
        const caption = options(h("select", {
            id: "caption",
            onchange: e => {
                state.caption = e.target.value;
                refresh();
            },
        }), [["", "nothing"], ...measures.map(m => [m, title(m)])], "");

        /* The same axis cannot lie both ways: the other direction gives it up. */
        function choose(which, axis) {
            const other = which === "rows" ? "columns" : "rows";
            if (state[other] === axis && axis !== NONE)
                state[other] = state[which];
            state[which] = axis;
            sync();
            refresh();
        }
        function sync() {
            options(rows, [...axisEntries, [NONE, "none"]], state.rows);
            options(columns, [...axisEntries, [NONE, "none"]], state.columns);
        }
        function reset() {
            Object.assign(state, { search: "", only: "all" });
            state.shown = axes.map(a => a.values.map(() => true));
            search.value = "";
            only.value = "all";
            refresh();
        }
        sync();
        return h("div", { class: "toolbar", role: "region", "aria-label": "What is shown" },
            h("div", { class: "tools" },
                field("Rows", rows), field("Columns", columns),
                field("Size", h("span", { class: "range" }, size, sizeText)),
                measures.length ? field("Under pictures", caption) : null,
                field("Show", only), field("Search", search)),
            h("div", { class: "tools" }, axes.map(axisFilter),
                h("button", { type: "button", id: "reset", onclick: reset }, "Reset filters"), count));
    }

    /* ---- grid ---- */

    const grid = h("div", { class: "grid", id: "grid", tabindex: "0", role: "region",
        "aria-label": "Pictures" });
    const pictures = new Map(); /* cell -> its button, made once */

    function picture(c, attributes) {
        return h("img", { src: sources.get(c.id), width: c.width, height: c.height, ...attributes });
    }

    function cellButton(c) {
        if (pictures.has(c))
            return pictures.get(c);
        const tag = isBaseline(c) ? h("span", { class: "tag" }, "baseline") : null;
        let inside;
        if (c.status === "done")
            inside = picture(c, { alt: `Picture: ${label(c)}`, decoding: "async" });
        else
            inside = h("span", { class: `why ${c.status}` }, h("b", {}, c.status),
                c.error ? h("span", {}, c.error) : null);
        const button = h("button", {
            type: "button", class: "cell", "data-id": c.id, "data-status": c.status,
            "aria-label": `${label(c)}: ${c.status === "done" ? "enlarge" : c.status}`,
            onclick: () => viewer.open(c),
        }, inside, tag);
        pictures.set(c, button);
        return button;
    }

    function applySize() {
        grid.style.setProperty("--size", `${state.size}px`);
        grid.classList.toggle("enlarged", state.size >= widest);
    }

    /* Where a prompt is an axis, its whole text stands under its name. */
    function valueLabel(axis, value, cell) {
        const name = axes[axis].values[value];
        const full = axes[axis].name === "prompt" && cell ? text(cell.settings.prompt) : "";
        return [h("span", { class: "value", title: name }, name === "" ? "(empty)" : name),
            full && full !== name ? h("span", { class: "full", title: full }, full) : null];
    }

    function buildGrid() {
        const seen = cells.filter(visible);
        const inBlock = axes.map((_, i) => i).filter(i => i !== state.rows && i !== state.columns);
        const along = axis => (axis === NONE ? [NONE] :
            [...new Set(seen.map(c => c.coords[axis]))].sort((a, b) => a - b));
        const columns = along(state.columns);
        const blocks = new Map();
        for (const c of seen) {
            const key = inBlock.map(i => c.coords[i]).join();
            if (!blocks.has(key))
                blocks.set(key, { coords: inBlock.map(i => c.coords[i]), rows: new Map() });
            const rows = blocks.get(key).rows;
            const row = state.rows === NONE ? NONE : c.coords[state.rows];
            if (!rows.has(row))
                rows.set(row, new Map());
            const column = state.columns === NONE ? NONE : c.coords[state.columns];
            rows.get(row).set(column, c);
        }
        const byPlace = (a, b) => a.map((v, i) => v - b[i]).find(d => d) || 0;
        const ordered = [...blocks.values()].sort((a, b) => byPlace(a.coords, b.coords));
        const has = state.rows !== NONE;

        const table = h("table", {}, h("caption", { class: "unseen" }, "Pictures by their settings"));
        if (state.columns !== NONE)
            table.append(h("thead", {}, h("tr", {},
                has ? h("td", { class: "corner" }, h("span", {}, axes[state.rows].title),
                    h("span", {}, axes[state.columns].title)) : null,
                columns.map(v => h("th", { scope: "col" }, valueLabel(state.columns, v,
                    seen.find(c => c.coords[state.columns] === v)))))));
        for (const block of ordered) {
            const body = h("tbody", {});
            if (inBlock.length > 0)
                body.append(h("tr", { class: "block" },
                    h("th", { colspan: columns.length + (has ? 1 : 0), scope: "rowgroup" },
                        h("span", { class: "stay" }, inBlock.map((axis, i) =>
                            h("span", { class: "pair" }, h("span", { class: "muted" },
                                `${axes[axis].title} `), axes[axis].values[block.coords[i]]))))));
            for (const [v, row] of [...block.rows].sort((a, b) => a[0] - b[0])) {
                const one = row.values().next().value;
                body.append(h("tr", { "data-row": v === NONE ? "" : axes[state.rows].values[v] },
                    has ? h("th", { scope: "row" }, h("div", { class: "row-label" },
                        valueLabel(state.rows, v, one))) : null,
                    columns.map(k => {
                        const c = row.get(k);
                        if (!c)
                            return h("td", { class: "none" });
                        return h("td", {}, cellButton(c), state.caption ?
                            h("div", { class: "caption" }, measureText(c, state.caption)) : null);
                    })));
            }
            table.append(body);
        }
        grid.replaceChildren(seen.length ? table :
            h("p", { class: "muted empty" }, "No cell fits these filters."));
        count.textContent = seen.length === cells.length ? plural(cells.length, "cell") :
            `${seen.length} of ${plural(cells.length, "cell")}`;
        shownCells = ordered.flatMap(b => [...b.rows].sort((x, y) => x[0] - y[0])
            .flatMap(([, row]) => columns.map(k => row.get(k)).filter(Boolean)));
    }
    let shownCells = []; /* as they lie in the grid, for the viewer's arrows */

    /* ---- measures ---- */

    const measureTable = h("div", { class: "scroll" });
    const measured = { axis: first.rows === NONE ? first.columns : first.rows, sort: "", down: true };

    function statistics(values) {
        const mean = values.reduce((s, v) => s + v, 0) / values.length;
        const variance = values.reduce((s, v) => s + (v - mean) ** 2, 0) / values.length;
        return { n: values.length, mean, deviation: Math.sqrt(variance) };
    }

    /* For each value of the axis, the mean of every measure over the cells in the grid that have it. */
    function buildMeasures() {
        const axis = axes[measured.axis];
        const seen = cells.filter(c => c.status === "done" && visible(c));
        const rows = axis.values.map((value, i) => {
            const here = seen.filter(c => c.coords[measured.axis] === i);
            const by = new Map();
            for (const m of measures) {
                const values = here.map(c => c.measures[m]).filter(v => typeof v === "number");
                if (values.length > 0)
                    by.set(m, statistics(values));
            }
            return { value, i, n: here.length, by };
        }).filter(r => r.n > 0);
        const of = r => (measured.sort === "" ? -r.i :
            r.by.has(measured.sort) ? r.by.get(measured.sort).mean : -Infinity);
        rows.sort((a, b) => (measured.down || measured.sort === "" ? of(b) - of(a) : of(a) - of(b)) ||
            a.i - b.i);
        const largest = new Map(measures.map(m =>
            [m, Math.max(0, ...rows.map(r => (r.by.has(m) ? Math.abs(r.by.get(m).mean) : 0)))]));
        const heading = (key, name, hint) => h("th", {
            scope: "col", "aria-sort": measured.sort !== key ? null :
                key === "" || !measured.down ? "ascending" : "descending",
        }, h("button", {
            type: "button", class: "sort", title: hint, "data-sort": key,
            onclick: () => {
                measured.down = measured.sort === key ? !measured.down : true;
                measured.sort = key;
                buildMeasures();
                measureTable.querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
            },
        }, name));
        const bar = (r, m) => {
            const s = r.by.get(m);
            if (!s)
                return h("td", { class: "number muted" }, "\u2013");
            const share = largest.get(m) > 0 ? 100 * Math.abs(s.mean) / largest.get(m) : 0;
            const fill = h("span", { class: "fill" });
            fill.style.width = `${share}%`;
            return h("td", { class: "bar" }, h("span", { class: "track" }, fill),
                h("span", { class: "figure" }, number(s.mean),
                    s.n > 1 ? h("span", { class: "muted" }, ` \u00b1 ${number(s.deviation)}`) : null));
        };
        measureTable.replaceChildren(rows.length === 0 ?
            h("p", { class: "muted" }, "No finished cell fits these filters.") :
            h("table", { class: "measures" },
                h("thead", {}, h("tr", {}, heading("", axis.title, "in the order of the experiment"),
                    h("th", { scope: "col", class: "number" }, "Cells"),
                    measures.map(m => heading(m, title(m), ABOUT.has(m) ? ABOUT.get(m)[1] : m)))),
                h("tbody", {}, rows.map(r => h("tr", {},
                    h("th", { scope: "row" }, h("span", { class: "value" }, r.value),
                        baseline[measured.axis] === r.i ? h("span", { class: "tag still" },
                            "baseline") : null),
                    h("td", { class: "number" }, r.n), measures.map(m => bar(r, m)))))));
    }

    function measuresSection() {
        if (measures.length === 0)
            return null;
        const select = options(h("select", {
            id: "measure-axis",
            onchange: e => {
                measured.axis = Number(e.target.value);
                measured.sort = "";
                buildMeasures();
            },
        }), axes.map((a, i) => [i, a.title]), measured.axis);
        return h("section", { id: "measures" },
            h("div", { class: "section-head" }, h("h2", {}, "Measures"), field("by", select)),
            h("p", { class: "muted small" },
                "Mean and standard deviation over the cells in the grid above, so filters count. ",
                "Bars begin at zero; a click on a heading sorts."), measureTable);
    }

    /* ---- differences ---- */

    /* The colours of a heat map, dark to bright: those of lw_colour_scale (canvas.c). */
    const SCALE = [0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30,
        0xfde725].map(v => [v >> 16, v >> 8 & 255, v & 255]);

    function heat(t) {
        const at = Math.min(1, Math.max(0, t)) * (SCALE.length - 1);
        const i = Math.min(SCALE.length - 2, Math.floor(at));
        return SCALE[i].map((v, k) => Math.round(v + (SCALE[i + 1][k] - v) * (at - i)));
    }

    async function pixels(c) {
        const img = new Image();
        img.src = sources.get(c.id);
        await img.decode();
        const canvas = h("canvas", { width: img.naturalWidth, height: img.naturalHeight });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(img, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
    }

    /* Numbers over all channels; `each` has the largest channel's difference of every pixel. Null
     * for pictures of different sizes. */
    function difference(a, b) {
        if (a.width !== b.width || a.height !== b.height)
            return null;
        const each = new Uint8Array(a.width * a.height);
        let sum = 0, squares = 0, largest = 0, differing = 0;
        for (let i = 0; i < each.length; i++) {
            let most = 0;
            for (let k = 0; k < 3; k++) {
                const d = Math.abs(a.data[4 * i + k] - b.data[4 * i + k]);
                sum += d;
                squares += d * d;
                most = Math.max(most, d);
            }
            each[i] = most;
            largest = Math.max(largest, most);
            differing += most > 0;
        }
        const n = 3 * each.length;
        return { width: a.width, height: a.height, each, largest, differing, mean: sum / n,
            psnr: squares ? 10 * Math.log10(255 * 255 * n / squares) : Infinity };
    }

    function paint(canvas, d, gain) {
        canvas.width = d.width;
        canvas.height = d.height;
        const context = canvas.getContext("2d", { willReadFrequently: true });
        const image = context.createImageData(d.width, d.height);
        const colours = Array.from({ length: 256 }, (_, v) => heat(v * gain / 255));
        d.each.forEach((v, i) => {
            image.data.set(colours[v], 4 * i);
            image.data[4 * i + 3] = 255;
        });
        context.putImageData(image, 0, 0);
    }

    /* ---- viewer ---- */

    /* One cell large (A), alone or against another (B). */
    const viewer = (() => {
        const view = { a: null, b: null, mode: "picture", gain: 0, split: 50 };
        const stage = h("div", { class: "stage" });
        const side = h("div", { class: "side" });
        const heading = h("h2", { id: "viewer-title" });
        const MODES = [["picture", "Picture"], ["slider", "Slider"], ["both", "Side by side"],
            ["difference", "Difference"]];
        const modes = MODES.map(([mode, name]) => h("button", {
            type: "button", "data-mode": mode, "aria-pressed": "false", onclick: () => {
                view.mode = mode;
                show();
            },
        }, name));
        const dialog = h("dialog", { class: "viewer", "aria-labelledby": "viewer-title" },
            h("div", { class: "viewer-head" }, heading,
                h("div", { class: "modes", role: "group", "aria-label": "View" }, modes),
                h("div", { class: "moves" },
                    h("button", { type: "button", id: "previous", onclick: () => step(-1) },
                        "Previous"),
                    h("button", { type: "button", id: "next", onclick: () => step(1) }, "Next"),
                    h("button", { type: "button", id: "close", onclick: () => dialog.close() },
                        "Close"))),
            h("div", { class: "viewer-body" }, stage, side));
        let drawn = 0; /* which call of show() is the latest: an older one's pictures come too late */

        dialog.addEventListener("keydown", e => {
            if (e.target.closest("select, input, [role=slider], .side") || e.altKey || e.ctrlKey)
                return;
            if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
                step(e.key === "ArrowRight" ? 1 : -1);
                e.preventDefault();
            }
        });
        dialog.addEventListener("close", () => {
            stage.replaceChildren();
            if (pictures.has(view.a))
                pictures.get(view.a).focus();
        });
        new ResizeObserver(() => fit()).observe(stage);

        /* What a cell is first compared with: the baseline, or else its neighbour. */
        function partner(a) {
            const base = hasBaseline && cellAt(baselineCoords(a.coords));
            if (base && base !== a)
                return base;
            for (let i = 0; i < axes.length; i++) {
                if (isBaseline(a) && baseline[i] < 0)
                    continue;
                for (const by of [1, -1]) {
                    const coords = a.coords.slice();
                    coords[i] += by;
                    if (cellAt(coords))
                        return cellAt(coords);
                }
            }
            return a;
        }

        function step(by) {
            const at = shownCells.indexOf(view.a);
            const to = shownCells[at + by];
            if (!to)
                return;
            view.a = to;
            view.b = partner(to);
            show();
        }

        /* As large as it fits, by whole factors where it grows to twice the size or more. */
        function fit() {
            const frames = stage.querySelectorAll("[data-width]");
            const across = stage.querySelectorAll("figure").length > 1 && stage.clientWidth > 600 ?
                2 : 1;
            const down = frames.length > 1 && across === 1 ? 2 : 1;
            for (const frame of frames) {
                const width = Number(frame.dataset.width), height = Number(frame.dataset.height);
                const room = [(stage.clientWidth - 32 - 16 * (across - 1)) / across / width,
                    (stage.clientHeight - 72 - 40 * (down - 1)) / down / height];
                let scale = Math.max(0.05, Math.min(...room));
                if (scale >= 2)
                    scale = Math.floor(scale);
                frame.style.width = `${Math.floor(width * scale)}px`;
                frame.style.height = `${Math.floor(height * scale)}px`;
                frame.classList.toggle("pixels", scale >= 1);
            }
        }

        function frame(c, ...children) {
            return h("div", { class: "frame", "data-width": c.width, "data-height": c.height },
                children);
        }

        function one(c, letter) {
            if (c.status !== "done")
                return h("figure", {}, h("div", { class: `why large ${c.status}` },
                    h("b", {}, c.status), h("span", {}, c.error || "This cell has not been made.")));
            return h("figure", {}, frame(c, picture(c, { alt: `Picture: ${label(c)}` })),
                letter ? h("figcaption", {}, h("b", {}, letter), ` ${short(c)}`) : null);
        }

        /* The values that tell A from B; all of them when there is nothing to tell. */
        function short(c) {
            const telling = axes.map((_, i) => i).filter(i => view.a.coords[i] !== view.b.coords[i]);
            return (telling.length ? telling : axes.map((_, i) => i))
                .map(i => `${axes[i].title} ${axes[i].values[c.coords[i]]}`).join(", ");
        }

        function slider() {
            const top = picture(view.a, { alt: `Picture A: ${label(view.a)}`, class: "top",
                draggable: "false" });
            const handle = h("div", {
                class: "handle", role: "slider", tabindex: "0", "aria-label":
                    "Share of the width that shows A, the rest shows B",
                "aria-valuemin": 0, "aria-valuemax": 100, "aria-orientation": "horizontal",
            });
            const set = percent => {
                view.split = Math.min(100, Math.max(0, percent));
                top.style.clipPath = `inset(0 ${100 - view.split}% 0 0)`;
                handle.style.left = `${view.split}%`;
                handle.setAttribute("aria-valuenow", Math.round(view.split));
            };
            const box = frame(view.a, picture(view.b, { alt: `Picture B: ${label(view.b)}`,
                draggable: "false" }), top, handle);
            const follow = e => {
                const r = box.getBoundingClientRect();
                set(100 * (e.clientX - r.left) / r.width);
            };
            box.classList.add("slider");
            box.addEventListener("pointerdown", e => {
                box.setPointerCapture(e.pointerId);
                follow(e);
                handle.focus();
                e.preventDefault();
            });
            box.addEventListener("pointermove", e => {
                if (box.hasPointerCapture(e.pointerId))
                    follow(e);
            });
            handle.addEventListener("keydown", e => {
                const to = { ArrowLeft: view.split - (e.shiftKey ? 10 : 1),
                    ArrowRight: view.split + (e.shiftKey ? 10 : 1), Home: 0, End: 100 }[e.key];
                if (to === undefined)
                    return;
                set(to);
                e.preventDefault();
                e.stopPropagation();
            });
            set(view.split);
            return h("figure", {}, box, h("figcaption", { class: "apart" },
                h("span", {}, h("b", {}, "A"), ` ${short(view.a)}`),
                h("span", {}, `${short(view.b)} `, h("b", {}, "B"))));
        }

        function heatMap(d) {
            const gain = view.gain || Math.max(1, Math.floor(255 / Math.max(1, d.largest)));
            const canvas = h("canvas", { id: "heat", role: "img",
                "aria-label": `Where ${label(view.a)} differs from ${label(view.b)}` });
            paint(canvas, d, gain);
            const select = options(h("select", {
                id: "gain",
                onchange: e => {
                    view.gain = Number(e.target.value);
                    show();
                },
            }), [[0, `automatic (${gain}x)`], ...[1, 2, 4, 8, 16, 32, 64].map(g => [g, `${g}x`])],
            view.gain);
            const legend = h("span", { class: "legend" });
            legend.style.background = `linear-gradient(to right, ${SCALE.map(c =>
                `rgb(${c.join(" ")})`).join(", ")})`;
            const top = number(255 / gain);
            return h("figure", {}, frame(d, canvas), h("figcaption", { class: "apart" },
                field("Gain", select), h("span", { class: "legend-line" }, "0", legend,
                    `${top}${gain > 1 ? " or more" : ""}`)));
        }

        function axisTable() {
            const select = (which, i) => options(h("select", {
                "data-which": which, "data-axis": axes[i].name,
                "aria-label": `${axes[i].title} of ${which.toUpperCase()}`,
                onchange: e => {
                    const coords = view[which].coords.slice();
                    coords[i] = Number(e.target.value);
                    if (cellAt(coords))
                        view[which] = cellAt(coords);
                    show();
                    side.querySelector(`select[data-which="${which}"][data-axis="${
                        CSS.escape(axes[i].name)}"]`).focus();
                },
            }), axes[i].values.map((v, k) => [k, v]), view[which].coords[i]);
            return h("table", { class: "compact axes" },
                h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "A"),
                    h("th", { scope: "col" }, "B"))),
                h("tbody", {}, axes.map((a, i) => h("tr",
                    { class: view.a.coords[i] !== view.b.coords[i] ? "marked" : null },
                    h("th", { scope: "row" }, a.title), h("td", {}, select("a", i)),
                    h("td", {}, select("b", i))))));
        }

        function numbers(d) {
            if (view.a === view.b)
                return h("p", { class: "muted small", id: "numbers" },
                    "A and B are the same cell: choose another value for one of them.");
            if (!d)
                return h("p", { class: "muted small", id: "numbers" },
                    view.a.status !== "done" || view.b.status !== "done" ?
                        "One of the two has no picture." :
                        "The pictures have different sizes: no difference can be computed.");
            const share = 100 * d.differing / d.each.length;
            const rows = [["PSNR", d.psnr === Infinity ? "equal" : `${number(d.psnr)} dB`, "psnr"],
                ["Mean difference", `${number(d.mean)} of 255`, "mean"],
                ["Largest difference", `${d.largest} of 255`, "largest"],
                ["Pixels that differ", `${number(share)} %`, "share"]];
            return h("table", { class: "compact", id: "numbers" }, h("tbody", {},
                rows.map(([name, value, key]) => h("tr", {}, h("th", { scope: "row" }, name),
                    h("td", { class: "number", "data-number": key }, value)))));
        }

        function measuresOf() {
            const { a, b } = view;
            const shown = measures.filter(m =>
                Object.hasOwn(a.measures, m) || Object.hasOwn(b.measures, m));
            if (shown.length === 0)
                return null;
            return [h("h3", {}, "Measures"), h("table", { class: "compact" },
                h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col", class: "number" },
                    "A"), h("th", { scope: "col", class: "number" }, "B"))),
                h("tbody", {}, shown.map(m => h("tr", {},
                    h("th", { scope: "row", title: ABOUT.has(m) ? ABOUT.get(m)[1] : m }, title(m)),
                    h("td", { class: "number" }, measureText(a, m)),
                    h("td", { class: "number" }, measureText(b, m))))))];
        }

        function settingsOf() {
            const { a, b } = view;
            const keys = Object.keys(a.settings);
            const apart = new Set(keys.concat(Object.keys(b.settings)).filter(k =>
                text(a.settings[k]) !== text(b.settings[k])));
            const own = keys.filter(k => !common.has(k));
            return [
                h("h3", {}, "Settings of A"),
                own.length ? settingsTable(own.map(k => [k, a.settings[k]]), apart) :
                    h("p", { class: "muted small" }, "None of its own."),
                own.length && apart.size ? h("p", { class: "muted small" },
                    "Marked: other in B.") : null,
                common.size ? h("details", {}, h("summary", { class: "small" },
                    `${plural(common.size, "setting")} common to all cells`),
                settingsTable([...common], null)) : null,
                a.status === "done" ? h("p", { class: "small" },
                    h("a", { href: a.file, target: "_blank", rel: "noopener" }, a.file),
                    h("span", { class: "muted" }, ` ${a.width} x ${a.height}, beside this page`)) :
                    null,
            ];
        }

        async function show() {
            const mine = ++drawn;
            const both = view.a.status === "done" && view.b.status === "done";
            let d = null;
            if (both && view.a !== view.b) {
                try {
                    const [a, b] = await Promise.all([pixels(view.a), pixels(view.b)]);
                    d = difference(a, b);
                } catch (e) {
                    console.error(e);
                }
            }
            if (mine !== drawn)
                return;
            const possible = { picture: true, slider: both, both: true, difference: d !== null };
            for (const b of modes) {
                b.disabled = !possible[b.dataset.mode];
                b.setAttribute("aria-pressed", String(b.dataset.mode === view.mode));
            }
            heading.textContent = axes.map((a, i) => a.values[view.a.coords[i]]).join(" \u00b7 ");
            heading.title = label(view.a);
            const at = shownCells.indexOf(view.a);
            dialog.querySelector("#previous").disabled = at <= 0;
            dialog.querySelector("#next").disabled = at < 0 || at + 1 >= shownCells.length;
            let figures;
            if (view.mode === "slider" && both)
                figures = [slider()];
            else if (view.mode === "both")
                figures = [one(view.a, "A"), one(view.b, "B")];
            else if (view.mode === "difference" && d)
                figures = [heatMap(d)];
            else
                figures = [one(view.a, "")];
            stage.replaceChildren(...figures);
            side.replaceChildren(...[
                view.a.error ? h("p", { class: "bad" }, `A ${view.a.status}: ${view.a.error}`) : null,
                axisTable(), h("h3", {}, "Difference of A and B",
                    page.thumbnail ? h("span", { class: "muted" }, " (smaller pictures)") : null),
                numbers(d), measuresOf(), settingsOf()].flat().filter(e => e !== null));
            fit();
        }

        return {
            dialog,
            open(c) {
                view.a = c;
                view.b = partner(c);
                if (!dialog.open)
                    dialog.showModal();
                show();
            },
        };
    })();

    /* ---- all of it ---- */

    let due = false;
    function refresh() {
        if (due)
            return;
        due = true;
        requestAnimationFrame(() => {
            due = false;
            filterNames.forEach(f => f());
            buildGrid();
            if (measures.length > 0)
                buildMeasures();
        });
    }

    /* A drop-down closes when the reader turns to something else. */
    function closeFilters(e) {
        for (const d of document.querySelectorAll("details.filter[open]"))
            if (!(e.target instanceof Node && d.contains(e.target)) || e.key === "Escape")
                d.open = false;
    }
    document.addEventListener("pointerdown", closeFilters);
    document.addEventListener("focusin", closeFilters);
    document.addEventListener("keydown", e => {
        if (e.key === "Escape")
            closeFilters(e);
    });

    document.getElementById("report").append(...[facts(), about(), toolbar(), grid,
        measuresSection(), viewer.dialog].flat().filter(e => e !== null));
    applySize();
    filterNames.forEach(f => f());
    buildGrid();
    if (measures.length > 0)
        buildMeasures();
})();
