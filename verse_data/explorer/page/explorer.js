/* The page itself: what is chosen, what is shown of it, and the keys. */
"use strict";

const by = (id) => document.getElementById(id);
const STATUS_EVERY = 300; // milliseconds between two questions whether a scan is ready
const HURRIED = 200; // milliseconds after a choice within which another one waits, so that a key held down loads one scan
/* How a scan is shown, unless the address says otherwise. */
const USUAL = { window: "bone", extent: "detail", view: "all", opacity: 0.4, outline: false, names: true };

verse.App = class {
  async start() {
    this.facts = await verse.source.facts();
    this.state = { scan: null, level: null, mm: null, hidden: new Set(), ...USUAL };
    this.labelOf = new Map(this.facts.levels.map((one) => [one.level, one.label]));
    this.levelOf = new Map(this.facts.levels.map((one) => [one.label, one.level]));
    this.filters = new verse.Filters(this.facts);
    this.table = new verse.Table(by("grid"), (row) => this.chooseRow(row), (sort) => { this.filters.table.sort = sort; this.writeAddress(); });
    this.identify();
    this.controls();
    await this.openViewer();
    await this.followAddress();
    window.addEventListener("hashchange", () => { if (location.hash !== this.address) this.followAddress(); });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  // --- who and what -----------------------------------------------------------------------------

  identify() {
    const { release, kept } = this.facts;
    by("release").textContent = `${release.name} ${release.version}`;
    document.title = `${release.name} ${release.version} – verse-data explorer`;
    by("note").textContent = release.note;
    by("note").hidden = !release.note;
    if (kept) {
      by("kept").textContent = kept.selection;
      by("kept").hidden = false;
      for (const part of by("where-form").children) part.hidden = part.id !== "clear";
    }
    by("foot").replaceChildren(...[
      `${release.licence}`, release.attribution, release.lock.slice(0, 19), `verse-data ${release.package}`, "Not for clinical use",
    ].filter(Boolean).map((text) => element("span", { title: text }, text)));
    by("about").append(
      element("h2", { id: "about-title" }, "Licence and citation"), element("p", {}, release.title),
      element("pre", { tabindex: "0" }, `${release.citation}\n\nlock ${release.lock}\ncommit ${release.commit}`),
      element("p", {}, "Pictures are drawn by NiiVue 0.69.0, © 2021 Niivue, BSD 2-Clause licence."), closer("about"));
    const keys = [["j / k, ↓ / ↑", "next and previous row"], ["1, 2, 3", "window: bone, soft tissue, full HU"],
      ["d", "whole scan, or full resolution around the crosshair"], ["← → ↑ ↓, PageUp, PageDown", "in the picture: move the crosshair; with Shift, turn the 3-D view"],
      ["v", "view: all four, or one of them"], ["m / o / n", "mask, its outline, names"], ["/", "the condition"], ["t", "next table"], ["Esc", "back to the table"], ["?", "these keys"]];
    const rows = keys.map(([key, text]) => element("tr", {}, element("td", {}, key), element("td", {}, text)));
    by("help").append(element("h2", { id: "help-title" }, "Keys"), element("table", {}, element("tbody", {}, ...rows)), closer("help"));
  }

  controls() {
    for (const [name, { title }] of Object.entries(verse.layout)) {
      const tab = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "body" }, title);
      tab.addEventListener("click", () => this.openTable(name));
      by("tabs").append(tab);
    }
    by("tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      this.nextTable(step);
      by(`tab-${this.filters.table.name}`).focus();
    });
    by("body").setAttribute("role", "tabpanel");
    Object.entries(verse.windows).forEach(([name, { title }], at) => {
      const button = element("button", { type: "button", "data-window": name, "aria-keyshortcuts": at + 1 }, `${title} `, element("kbd", {}, String(at + 1)));
      button.addEventListener("click", () => this.setWindow(name));
      by("windows").append(button);
    });
    if (!verse.source.onDisk()) {
      for (const [name, title] of [["detail", "Full resolution"], ["whole", "Whole scan"]]) {
        const button = element("button", { type: "button", "data-extent": name }, title);
        button.addEventListener("click", () => this.setExtent(name));
        by("extents").append(button);
      }
    }
    by("where-form").addEventListener("submit", (event) => { event.preventDefault(); this.apply(by("where").value.trim()); });
    by("where").addEventListener("input", () => this.offerNames());
    by("clear").addEventListener("click", () => { this.filters.clear(); this.openTable(this.filters.table.name); });
    by("overview-on").addEventListener("change", () => { by("overview").hidden = !by("overview-on").checked; });
    by("csv").addEventListener("click", () => this.saveCsv());
    by("python").addEventListener("click", () => this.copyPython());
    by("view").append(...Object.entries(verse.views).map(([name, title]) => element("option", { value: name }, title)));
    by("view").addEventListener("change", () => this.setView(by("view").value));
    by("opacity").addEventListener("input", () => this.setMask({ opacity: Number(by("opacity").value) }));
    by("outline").addEventListener("change", () => this.setMask({ outline: by("outline").checked }));
    by("names").addEventListener("change", () => this.setNames(by("names").checked));
    by("about-open").addEventListener("click", () => by("about").showModal());
    by("help-open").addEventListener("click", () => by("help").showModal());
    by("gl").addEventListener("keydown", (event) => this.stageKey(event));
  }

  // --- the address keeps what is chosen -----------------------------------------------------------

  /** Choose what the address says; return what it names that is not here. */
  readAddress() {
    this.address = location.hash;
    const address = new URLSearchParams(this.address.slice(1));
    const lost = [];
    const known = (what, value, there) => { if (value && !there) lost.push(`${what} ${value}`); return there ? value : null; };
    const one = (key, choices, usual) => (Object.hasOwn(choices, address.get(key)) ? address.get(key) : usual);
    this.filters.open(one("table", verse.layout, "vertebrae"));
    const { table } = this.filters;
    if (!this.facts.kept) Object.assign(table, { where: address.get("where") || "", passing: null });
    table.facets = {};
    for (const part of address.getAll("only")) {
      const [column, ...words] = part.split("~");
      const there = Object.hasOwn(table.words, column) ? this.filters.order(column) : [];
      const chosen = words.filter((word) => known(there.length ? verse.labels[column] : column, word, there.includes(word)));
      if (chosen.length) table.facets[column] = new Set(chosen);
    }
    const [, down, column] = (address.get("sort") || "").match(/^(-?)(.*)$/);
    table.sort = { column: verse.layout[table.name].columns.includes(column) ? column : null, down: !!down };
    const scan = known("scan", address.get("scan"), this.facts.scans.includes(address.get("scan")));
    const level = scan && known("level", address.get("level"), this.vertebra(scan, address.get("level")) >= 0);
    const mm = (address.get("mm") || "").split(",").map(Number);
    const opacity = Number(address.get("opacity") ?? USUAL.opacity);
    Object.assign(this.state, {
      scan, level, mm: mm.length === 3 && mm.every(Number.isFinite) ? mm : null,
      window: one("window", verse.windows, USUAL.window), view: one("view", verse.views, USUAL.view),
      extent: address.get("extent") === "whole" ? "whole" : USUAL.extent,
      opacity: opacity >= 0 && opacity <= 1 ? opacity : USUAL.opacity,
      outline: address.get("outline") === "true", names: address.get("names") !== "false",
      hidden: new Set((address.get("hidden") || "").split(",").filter((name) => this.labelOf.has(name))),
    });
    return lost;
  }

  /** Keep what is chosen in the address, a moment later: it takes a browser long, and some refuse it if it is often. */
  writeAddress() {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => {
      if (location.hash !== this.address) return; // another address is about to be followed
      const { scan, level, mm, hidden } = this.state;
      const { name, where, facets, sort } = this.filters.table;
      const address = new URLSearchParams();
      const set = (key, value, usual) => { if (value !== null && value !== usual) address.set(key, value); };
      set("table", name, "vertebrae");
      set("where", this.facts.kept ? "" : where, "");
      for (const [column, words] of Object.entries(facets)) address.append("only", [column, ...words].join("~"));
      set("sort", sort.column && (sort.down ? "-" : "") + sort.column);
      set("scan", scan);
      set("level", level);
      set("mm", scan && mm && mm.map((value) => value.toFixed(1)).join(","));
      for (const [key, usual] of Object.entries(USUAL)) set(key, this.state[key], usual);
      set("hidden", [...hidden].join(","), "");
      history.replaceState(null, "", `#${address}`);
      this.address = location.hash;
    }, 80);
  }

  async followAddress() {
    const lost = this.readAddress();
    await this.openTable(this.filters.table.name, true);
    this.table.show();
    this.setMask({});
    this.setNames(this.state.names);
    this.setWindow(this.state.window);
    this.setView(this.state.view);
    if (this.state.scan) this.look();
    else { this.close(); this.status("Choose a row to see its scan."); }
    if (lost.length) this.refused(`This address names what is not here: ${lost.join(", ")}.`);
  }

  // --- the tables -----------------------------------------------------------------------------------

  async openTable(name, fromAddress) {
    this.filters.open(name);
    const { table } = this.filters;
    for (const tab of by("tabs").children) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    by("body").setAttribute("aria-labelledby", `tab-${name}`);
    const columns = verse.layout[name].columns.map((column) => this.column(column));
    this.table.setTable(columns, verse.layout[name].title, table.sort);
    by("where").value = table.where;
    this.refused("");
    if (fromAddress && table.where && !verse.source.onDisk()) await this.apply(table.where);
    else this.filter();
  }

  column(name) {
    const { table } = this.filters;
    const about = table.columns.find((one) => one.name === name) || { kind: "number", description: "Findings of this row" };
    const value = name === "findings" ? (row) => table.found[row].length
      : name === "level" ? (row) => this.filters.levels.indexOf(table.cells.level[row]) : (row) => table.cells[name][row];
    const cell = (row) => {
      const shown = name === "level" ? table.cells.level[row] : value(row);
      if (name === "findings") return shown ? String(shown) : "";
      if ((name === "grade" || name === "max_grade") && shown !== null) return element("span", { class: `grade g${shown}` }, String(shown));
      return shown === null ? null : String(shown);
    };
    return { name, kind: about.kind, label: verse.labels[name], title: about.description, width: verse.widths[name] || 58, value, cell };
  }

  /** Ask the server which rows a condition is true for; its error points at the place. */
  async apply(where) {
    const { table } = this.filters;
    table.where = where;
    table.passing = null;
    this.refused("");
    if (where) {
      const found = await verse.source.select(table.name, where).catch((error) => ({ error: error.message }));
      if (table.where !== where) return; // another one was given meanwhile
      if (found.error) {
        table.where = "";
        this.refused(found.error);
        return this.filter();
      }
      table.passing = new Set(found.rows.map((number) => table.own.get(number)));
    }
    this.filter();
  }

  refused(text) {
    by("where-error").textContent = text;
    by("where-error").hidden = !text;
    by("where").setAttribute("aria-invalid", String(!!text));
  }

  /** Offer names of columns for the word that is being typed. */
  offerNames() {
    const typed = by("where").value;
    const word = typed.match(/[A-Za-z_]*$/)[0];
    const names = word ? this.filters.table.columns.map((one) => one.name).filter((name) => name.startsWith(word)) : [];
    by("where-names").replaceChildren(...names.map((name) => element("option", { value: typed.slice(0, typed.length - word.length) + name })));
  }

  filter() {
    const { rows, counts, others } = this.filters.run();
    this.table.setRows(rows, this.currentRow());
    this.filters.drawFacets(by("facets"), counts, (column, word) => { this.filters.toggle(column, word); this.filter(); });
    this.filters.drawOverview(by("overview"), others, (column, word) => { this.filters.toggle(column, word); this.filter(); });
    const all = this.filters.table.size;
    by("count").textContent = `${rows.length.toLocaleString("en")} of ${all.toLocaleString("en")} ${verse.layout[this.filters.table.name].title.toLowerCase()}`;
    by("python-line").textContent = this.filters.python(rows);
    this.writeAddress();
  }

  currentRow() {
    const { name, cells } = this.filters.table;
    const { scan, level } = this.state;
    if (!scan) return -1;
    if (name === "subjects") return cells.subject_id.indexOf(this.subjectOf(scan));
    return name === "scans" ? cells.scan_id.indexOf(scan) : this.vertebra(scan, level);
  }

  /** The row of a vertebra; -1 if a scan has none of this level. */
  vertebra(scan, level) {
    const { cells } = this.filters.tables.vertebrae;
    return cells.scan_id.findIndex((id, row) => id === scan && cells.level[row] === level);
  }

  subjectOf(scan) {
    const { cells } = this.filters.tables.scans;
    return cells.subject_id[cells.scan_id.indexOf(scan)];
  }

  chooseRow(row) {
    const { name, cells } = this.filters.table;
    const own = this.filters.tables.scans.cells;
    const has = (id, at) => own.subject_id[at] === cells.subject_id[row] && this.facts.scans.includes(id);
    const scan = name === "subjects" ? own.scan_id.find(has) || own.scan_id[own.subject_id.indexOf(cells.subject_id[row])] : cells.scan_id[row];
    const level = name === "vertebrae" ? cells.level[row] : null;
    if (scan === this.state.scan && level === this.state.level && this.about) { if (level) this.goToLevel(level); return; }
    Object.assign(this.state, { scan, level, mm: null });
    this.look();
  }

  saveCsv() {
    const text = this.filters.csv(this.table.order);
    const link = element("a", { download: `${this.facts.release.name}-${this.filters.table.name}.csv`, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async copyPython() {
    const text = `import verse_data as vd\n${by("python-line").textContent}`;
    try { await navigator.clipboard.writeText(text); by("python").textContent = "Copied"; } catch {
      getSelection().selectAllChildren(by("python-line"));
      by("python").textContent = "Selected";
    }
    setTimeout(() => { by("python").textContent = "Copy Python"; }, 1200);
  }

  // --- the scan ---------------------------------------------------------------------------------------

  async openViewer() {
    const Kind = verse.Viewer.works() && !new URLSearchParams(location.search).has("plain") ? verse.Viewer : verse.SliceViewer;
    this.viewer = new Kind(by("gl"), by("marks"), this.facts.levels, (mm, values) => this.moved(mm, values));
    await this.viewer.attach();
  }

  /** Show no scan. */
  close() {
    clearTimeout(this.asking);
    this.viewer.clear();
    this.shown = this.about = null;
    this.drawLevels();
    this.card();
    by("preview").hidden = true;
    by("readout").replaceChildren();
    by("scan-name").textContent = "No scan";
  }

  status(text, ...more) {
    by("status").replaceChildren(...(text ? [text, ...more] : []));
    by("status").className = text && this.shown ? "over" : "";
  }

  /** Show the chosen scan: wait until it is ready, then the whole of it, then what is looked at. */
  async look(again) {
    const { scan, level } = this.state;
    const look = this.looks = (this.looks || 0) + 1;
    const stale = () => look !== this.looks;
    const start = performance.now();
    const hurried = start - this.lookedAt < HURRIED;
    this.lookedAt = start;
    by("stage").setAttribute("aria-busy", "true");
    this.writeAddress();
    if (this.shown && this.shown.scan !== scan) this.close();
    this.card();
    by("scan-name").textContent = scan;
    try {
      if (hurried) await new Promise((done) => setTimeout(done, HURRIED));
      if (stale()) return;
      const about = await this.ready(scan, again, stale);
      if (stale()) return;
      if (!about) return;
      this.about = about;
      this.drawLevels();
      if (about.preview) return this.showPreview(about.preview);
      const mm = this.state.mm || (level && this.pointOf(level)) || null;
      this.viewer.setNames({ points: about.centroids, guessed: about.guessed, level });
      if (level && !this.pointOf(level)) by("scan-name").textContent = `${scan}: ${level} has neither centroid nor mask`;
      const detail = this.wantsDetail() && mm;
      if (!this.shown || this.shown.scan !== scan || (!detail && this.shown.detail)) {
        this.status("Opening…");
        await this.load(scan, null, mm, stale);
        verse.firstPictureTook = performance.now() - start;
      } else if (mm && !detail) this.viewer.go(mm);
      if (detail) await this.load(scan, mm, mm, stale);
      if (!stale()) this.status("");
    } catch (error) {
      if (!stale()) this.failed(error.message);
    } finally {
      if (!stale()) by("stage").setAttribute("aria-busy", "false");
    }
  }

  wantsDetail() { return !verse.source.onDisk() && this.state.extent === "detail" && (this.state.level || this.state.mm); }

  async ready(scan, again, stale) {
    for (;;) {
      const about = await verse.source.scan(scan, again);
      if (stale() || about.state === "ready") return about;
      if (about.state === "failed") { this.failed(about.error); return null; }
      const bar = element("progress", about.total > 1 ? { value: about.done, max: about.total } : {});
      bar.setAttribute("aria-label", about.stage);
      const share = about.total > 1 ? `${Math.round((100 * about.done) / about.total)} %, ` : "";
      this.status(`${about.stage} ${scan} … ${share}${about.seconds.toFixed(0)} s`, bar);
      again = false;
      await new Promise((done) => setTimeout(done, STATUS_EVERY));
    }
  }

  failed(error) {
    const retry = element("button", { type: "button" }, "Try again");
    retry.addEventListener("click", () => this.look(true));
    this.status(error, element("br"), retry);
    by("status").className = "over";
  }

  async load(scan, point, mm, stale) {
    const label = this.about.has_label ? verse.source.volume(scan, "label", point) : null;
    const volumes = await Promise.all([verse.source.volume(scan, "image", point), label]);
    if (stale()) return;
    await this.viewer.show(...volumes, mm, this.state.window);
    this.shown = { scan, detail: !!point };
    for (const button of by("extents").children) button.setAttribute("aria-pressed", String((button.dataset.extent === "detail") === !!point));
    if (!point) this.status("");
  }

  showPreview(address) {
    by("right").className = "preview";
    by("preview").src = address;
    by("preview").alt = `Sagittal and coronal slice of ${this.state.scan}`;
    by("preview").hidden = false;
    this.shown = { scan: this.state.scan, detail: false };
    this.status("");
  }

  pointOf(level) {
    const label = this.labelOf.get(level);
    return this.about.centroids[label] || this.about.guessed[label] || null;
  }

  goToLevel(level) {
    this.state.mm = null;
    if (this.pointOf(level)) this.look();
  }

  /** Say where the crosshair is, and what the voxel there holds. */
  moved(mm, values) {
    this.state.mm = mm;
    this.readout(mm, values, this.shown && !this.shown.detail && this.about && this.about.factor > 1);
    this.writeAddress();
    clearTimeout(this.asking);
    this.asking = setTimeout(async () => {
      const { scan } = this.state;
      const exact = await verse.source.value(scan, mm).catch(() => null);
      if (exact && this.state.mm === mm) this.readout(mm, exact, false);
    }, 80);
  }

  readout(mm, { hu, label }, coarse) {
    const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
    const where = mm.map((value, axis) => `${sides[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`).join("  ");
    const level = label ? this.levelOf.get(Math.round(label)) || `label ${label}` : label === null ? "no mask" : "no vertebra";
    const { spacing, shape } = this.about || {};
    const parts = [
      element("span", { id: "at", "data-mm": mm.map((value) => value.toFixed(2)).join(" "), title: "World mm, RAS+" }, `${where} mm`),
      element("span", { id: "hu" }, hu === null || hu === undefined ? "outside" : `${Math.round(hu)} HU`),
      element("strong", { id: "level-here" }, level),
      element("span", { class: "grow" }),
      element("span", { class: "quiet" }, coarse ? `overview 1:${this.about.factor}` : ""),
      element("span", { class: "quiet" }, shape ? `${shape.join(" × ")} at ${spacing.join(" × ")} mm` : ""),
    ];
    by("readout").replaceChildren(...parts);
  }

  drawLevels() {
    const shown = this.about ? this.facts.levels.filter((one) => this.about.labels.includes(one.label)) : [];
    by("levels").replaceChildren(...shown.map(({ level, colour }) => {
      const dot = element("i");
      dot.style.background = `rgb(${colour.join(" ")})`;
      const button = element("button", { type: "button", "aria-pressed": String(!this.state.hidden.has(level)), title: `Show or hide ${level}` }, dot, level);
      button.addEventListener("click", () => {
        const { hidden } = this.state;
        if (!hidden.delete(level)) hidden.add(level);
        button.setAttribute("aria-pressed", String(!hidden.has(level)));
        this.setMask({});
      });
      return button;
    }));
    by("levels").hidden = !shown.length;
  }

  setWindow(name) {
    this.state.window = name;
    for (const button of by("windows").children) button.setAttribute("aria-pressed", String(button.dataset.window === name));
    this.viewer.setWindow(name);
    this.writeAddress();
  }

  setView(name) {
    this.state.view = by("view").value = name;
    this.viewer.setView(name);
    this.writeAddress();
  }

  setExtent(name) {
    this.state.extent = name;
    if (this.about) this.look();
  }

  setMask(mask) {
    const { opacity, outline, hidden } = Object.assign(this.state, mask);
    by("opacity").value = opacity;
    by("outline").checked = outline;
    this.viewer.setMask({ opacity, outline, hidden });
    this.writeAddress();
  }

  setNames(on) {
    this.state.names = by("names").checked = on;
    this.viewer.setNames({ on });
    this.writeAddress();
  }

  // --- the card ---------------------------------------------------------------------------------------

  card() {
    const { scan, level } = this.state;
    const table = this.filters.tables[level ? "vertebrae" : "scans"];
    const row = level ? this.vertebra(scan, level) : table.cells.scan_id.indexOf(scan);
    if (row < 0) return by("card").replaceChildren();
    const names = level
      ? ["grade", "fracture_type", "grade_status", "foreign_material", "split", "subject_id", "age_years", "bmd_mg_cm3", "volume_mm3"]
      : ["subject_id", "split", "series", "n_graded", "n_fractured", "max_grade", "ct_device", "kvp", "age_years", "bmd_mg_cm3", "t_score", "axcodes"];
    const facts = names.flatMap((name) => this.fact(table, name, row));
    if (level) facts.push(...this.cellOf(scan, level));
    const found = this.facts.findings.filter((one) => one.scan_id === scan && (!level || !one.level || one.level === level));
    const list = element("ul", {}, ...found.map((one) => element("li", {}, `${one.level ? `${one.level}: ` : ""}${one.message} (${one.rule})`)));
    const parts = [element("h2", {}, level ? `${level} of ${scan}` : scan), element("dl", {}, ...facts)];
    if (found.length) parts.push(list);
    by("card").replaceChildren(...parts, element("code", { tabindex: "0" }, this.sample(scan, level, table, row)));
  }

  fact(table, name, row) {
    const about = table.columns.find((one) => one.name === name);
    const value = table.cells[name][row];
    const unit = about.unit && value !== null ? ` ${about.unit.replace("3", "³").replace("year", "years")}` : "";
    const plain = typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 2 }) : value;
    const shown = value === null ? (name === "grade" ? "not assessed" : "–") : `${plain}${unit}`;
    return [element("div", { title: about.description }, element("dt", {}, verse.labels[name] || name.replaceAll("_", " ")), element("dd", {}, shown))];
  }

  /** The cell of the workbook that holds the grade of a vertebra. */
  cellOf(scan, level) {
    const { workbook } = this.facts;
    const { cells } = this.filters.tables.scans;
    const row = workbook && workbook.rows[cells.series_id[cells.scan_id.indexOf(scan)]];
    const column = workbook && workbook.columns[level];
    if (!row || !column) return [];
    const name = `${workbook.file.split("/").pop()}${workbook.sheet ? `, sheet ${workbook.sheet}` : ""}`;
    return [element("div", { class: "wide", title: workbook.file }, element("dt", {}, "Workbook"), element("dd", {}, `${column}${row} in ${name}`))];
  }

  /** The line of Python that serves this sample. */
  sample(scan, level, table, row) {
    const { name, version } = this.facts.release;
    const split = table.cells.split[row];
    if (!level || !split) return `vd.open_release("${name}", version="${version}").open_scan("${scan}")`;
    const status = table.cells.grade_status[row];
    const include = status === "graded" ? "" : `, include="${status}"`;
    return `vd.load_split("${split}", release="${name}", version="${version}", unit="vertebra"${include}, where="scan_id == '${scan}' and level == '${level}'")[0]`;
  }

  // --- keys -------------------------------------------------------------------------------------------

  key(event) {
    const typing = event.target.matches("input:not([type=checkbox]):not([type=range])");
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") { this.table.root.focus(); return; }
    if (typing) return;
    const windows = Object.keys(verse.windows);
    const keys = {
      j: () => this.table.move(1), k: () => this.table.move(-1),
      d: () => this.setExtent(this.shown && this.shown.detail ? "whole" : "detail"),
      v: () => { const names = Object.keys(verse.views); this.setView(names[(names.indexOf(this.state.view) + 1) % names.length]); },
      m: () => this.setMask({ opacity: this.state.opacity ? 0 : 0.4 }),
      o: () => this.setMask({ outline: !this.state.outline }),
      n: () => this.setNames(!this.state.names),
      t: () => this.nextTable(1),
      "/": () => by("where").focus(), "?": () => by("help").showModal(),
    };
    windows.forEach((name, at) => { keys[at + 1] = () => this.setWindow(name); });
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  nextTable(step) {
    const names = Object.keys(verse.layout);
    this.openTable(names[(names.indexOf(this.filters.table.name) + step + names.length) % names.length]);
  }

  stageKey(event) {
    const steps = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0] };
    if (!steps[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const [x, y, z] = steps[event.key];
    if (event.shiftKey) this.viewer.turn(10 * x, 10 * z);
    else this.viewer.step(x, y, z);
  }
};

/** A button that closes a dialog. */
function closer(id) {
  const button = element("button", { type: "button" }, "Close");
  button.addEventListener("click", () => by(id).close());
  return button;
}

window.addEventListener("DOMContentLoaded", () => {
  verse.app = new verse.App();
  verse.app.start().then(() => document.documentElement.setAttribute("data-ready", "")).catch((error) => {
    by("status").textContent = error.message;
    throw error;
  });
});
