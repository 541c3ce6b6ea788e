/* Filters: facets with counts, bars that are filters too, and the condition that says the same. */
"use strict";

/** Columns of a table that are shown, and those that rows are filtered by. */
verse.layout = {
  vertebrae: {
    title: "Vertebrae",
    columns: ["scan_id", "level", "grade", "fracture_type", "grade_status", "split", "bmd_mg_cm3", "age_years", "findings"],
    facets: ["split", "level", "grade", "fracture_type", "foreign_material", "grade_status", "age_years", "bmd_mg_cm3", "findings"],
  },
  scans: {
    title: "Scans",
    columns: ["scan_id", "split", "n_graded", "n_fractured", "max_grade", "ct_device", "axcodes", "bmd_mg_cm3", "age_years", "findings"],
    facets: ["split", "max_grade", "n_foreign_material", "ct_device", "axcodes", "has_mask", "has_grading", "age_years", "bmd_mg_cm3", "findings"],
  },
  subjects: {
    title: "Patients",
    columns: ["subject_id", "split", "n_scans", "n_levels", "n_graded", "n_fractured", "max_grade", "bmd_mg_cm3", "age_years", "findings"],
    facets: ["split", "max_grade", "has_foreign_material", "n_scans", "ct_device", "age_years", "bmd_mg_cm3", "findings"],
  },
};
verse.labels = {
  scan_id: "Scan", subject_id: "Patient", level: "Level", grade: "Grade", fracture_type: "Type", grade_status: "Status",
  split: "Split", bmd_mg_cm3: "BMD", age_years: "Age", volume_mm3: "Volume", findings: "Findings", foreign_material: "Foreign material",
  n_graded: "Graded", n_fractured: "Fractured", max_grade: "Highest grade", ct_device: "Device", axcodes: "Axes",
  has_mask: "Mask", has_grading: "Workbook row", n_foreign_material: "Foreign levels", n_scans: "Scans",
  n_levels: "Levels", has_foreign_material: "Foreign material",
};
verse.widths = {
  scan_id: 178, subject_id: 100, ct_device: 130, grade_status: 122, fracture_type: 82, split: 78, bmd_mg_cm3: 52, age_years: 50,
  findings: 74, level: 50, grade: 60, n_fractured: 76, max_grade: 100, n_graded: 62,
};
verse.bins = { age_years: 10, bmd_mg_cm3: 40 };
const MISSING = "missing";
const LONGEST = 4000; // characters of a condition, and
const MOST = 400; // columns and values in it, as in verse_data/tables/query.py

/** A text of the query language, which has no escapes. */
const quoted = (text) => (text.includes("'") ? `"${text}"` : `'${text}'`);

verse.Filters = class {
  constructor(facts) {
    this.facts = facts;
    this.levels = facts.levels.map((one) => one.level);
    this.tables = {};
    for (const name of Object.keys(verse.layout)) this.tables[name] = this.read(name);
    const { kept } = facts;
    if (kept && kept.rows) {
      const { own } = this.tables.vertebrae;
      const passing = new Set(kept.rows.map((number) => own.get(number)).filter((row) => row !== undefined));
      Object.assign(this.tables.vertebrae, { where: kept.where, passing });
    }
    this.open("vertebrae");
  }

  /** Cells, findings of each row, and the words that its facets may have, of a table. */
  read(name) {
    const { cells, columns, index } = this.facts.tables[name];
    const size = index.length;
    const own = new Map(index.map((number, at) => [number, at]));
    const found = Array.from({ length: size }, () => []);
    const key = name === "subjects" ? "subject_id" : "scan_id";
    const byKey = new Map();
    cells[key].forEach((id, at) => byKey.set(id, [...(byKey.get(id) || []), at]));
    for (const finding of this.facts.findings) {
      for (const at of byKey.get(finding[key]) || []) {
        if (name !== "vertebrae" || !finding.level || finding.level === cells.level[at]) found[at].push(finding.rule);
      }
    }
    const words = { findings: found.map((rules) => (rules.length ? [...new Set(rules)] : ["none"])) };
    for (const facet of verse.layout[name].facets) {
      if (facet !== "findings") words[facet] = cells[facet].map((value) => [this.word(facet, value)]);
    }
    return { name, key, cells, columns, size, own, found, words, order: {}, where: "", passing: null, facets: {}, sort: { column: null, down: false } };
  }

  open(name) { this.table = this.tables[name]; }

  word(column, value) {
    if (value === null) return MISSING;
    const width = verse.bins[column];
    return String(width ? Math.floor(value / width) * width : value);
  }

  title(column, word) {
    const width = verse.bins[column];
    return width && word !== MISSING ? `${word}–${Number(word) + width - 1}` : word;
  }

  toggle(column, word) {
    const chosen = (this.table.facets[column] ||= new Set());
    if (!chosen.delete(word)) chosen.add(word);
    if (!chosen.size) delete this.table.facets[column];
  }

  clear() { Object.assign(this.table, { facets: {}, where: "", passing: null }); }

  /** Numbers of the rows that pass, and for each facet, of each word, how many would. */
  run() {
    const { facets, passing, words, size } = this.table;
    const active = Object.entries(facets);
    const rows = [];
    const counts = {};
    const others = {};
    for (const column of Object.keys(words)) { counts[column] = new Map(); others[column] = []; }
    for (let row = 0; row < size; row++) {
      if (passing && !passing.has(row)) continue;
      let failed = 0;
      let only = null; // the one filter that it fails
      for (const [column, chosen] of active) {
        if (!words[column][row].some((word) => chosen.has(word))) { failed += 1; only = column; if (failed > 1) break; }
      }
      if (failed > 1) continue;
      if (!failed) rows.push(row);
      for (const column of failed ? [only] : Object.keys(words)) {
        others[column].push(row);
        for (const word of words[column][row]) counts[column].set(word, (counts[column].get(word) || 0) + 1);
      }
    }
    return { rows, counts, others };
  }

  /** All words of a facet, in their natural order. */
  order(column) {
    if (this.table.order[column]) return this.table.order[column];
    const words = [...new Set(this.table.words[column].flat())];
    const place = (word) => {
      if (word === MISSING || word === "none") return 1e9;
      const level = this.levels.indexOf(word);
      return column === "level" ? level : Number.isNaN(Number(word)) ? 0 : Number(word);
    };
    return this.table.order[column] = words.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  }

  /** The condition of the query language that gives the same rows; empty for all of them. */
  condition() {
    const { facets, where, name, key, cells, found } = this.table;
    const parts = where ? [Object.keys(facets).length || this.facts.kept ? `(${where})` : where] : [];
    const { kept } = this.facts;
    if (kept && kept.condition && name !== "subjects") parts.unshift(kept.condition);
    for (const [column, chosen] of Object.entries(facets)) {
      if (column === "findings") {
        const rows = found.flatMap((rules, row) => (rules.length ? rules.some((rule) => chosen.has(rule)) : chosen.has("none")) ? [row] : []);
        const pairs = new Map();
        for (const row of rows) pairs.set(cells[key][row], [...(pairs.get(cells[key][row]) || []), row]);
        const each = [...pairs].map(([id, own]) => name === "vertebrae"
          ? `(${key} == '${id}' and level in [${own.map((row) => `'${cells.level[row]}'`).join(", ")}])` : `'${id}'`);
        parts.push(name === "vertebrae" ? `(${each.join(" or ")})` : `${key} in [${each.join(", ")}]`);
        continue;
      }
      const known = [...chosen].filter((word) => word !== MISSING);
      const any = [];
      if (chosen.has(MISSING)) any.push(`missing(${column})`);
      if (known.length) any.push(...this.comparison(column, known));
      parts.push(any.length > 1 ? `(${any.join(" or ")})` : any[0]);
    }
    return parts.join(" and ");
  }

  comparison(column, words) {
    const { kind } = this.table.columns.find((one) => one.name === column);
    const width = verse.bins[column];
    if (width) return words.sort((a, b) => a - b).map((word) => `${word} <= ${column} < ${Number(word) + width}`);
    if (kind === "boolean") return words.map((word) => (word === "true" ? column : `not ${column}`));
    const values = this.order(column).filter((word) => words.includes(word)).map((word) => (kind === "number" ? word : quoted(word)));
    return [values.length > 1 ? `${column} in [${values.join(", ")}]` : `${column} == ${values[0]}`];
  }

  /** The line of Python that gives the same rows. */
  python(rows) {
    const { name, version } = this.facts.release;
    const condition = this.condition();
    const table = (where) => `vd.load_table("${this.table.name}", release="${name}", version="${version}"${where})`;
    const untold = this.facts.kept?.condition && this.table.name === "subjects"; // it is about scans
    if (untold || condition.length > LONGEST || condition.match(/'[^']*'|"[^"]*"|[\w.]+/g)?.length > MOST) {
      const { index } = this.facts.tables[this.table.name];
      return `${table("")}.loc[[${rows.map((row) => index[row]).join(", ")}]]`;
    }
    return table(condition && `, where=${JSON.stringify(condition)}`);
  }

  /** The rows as CSV: missing is empty, and no text is a formula. */
  csv(rows) {
    const names = this.table.columns.map((column) => column.name);
    const text = (value) => {
      if (value === null) return "";
      if (typeof value === "boolean") return value ? "True" : "False";
      const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
      return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const lines = rows.map((row) => names.map((name) => text(this.table.cells[name][row])).join(","));
    return [names.join(","), ...lines, ""].join("\n");
  }

  /** Draw the facets with the number of rows that each word would leave; later only what changes of them. */
  drawFacets(place, counts, onToggle) {
    if (this.drawn !== this.table) {
      this.boxes = [];
      place.replaceChildren(...verse.layout[this.table.name].facets.flatMap((column) => this.facet(column, onToggle)));
      this.drawn = this.table;
    }
    for (const { column, word, box, label, number } of this.boxes) {
      const count = counts[column].get(word) || 0;
      box.checked = !!this.table.facets[column] && this.table.facets[column].has(word);
      label.className = count ? "" : "none";
      number.textContent = count.toLocaleString("en");
    }
  }

  facet(column, onToggle) {
    const words = this.order(column);
    if (words.length < 2) return [];
    const about = this.table.columns.find((one) => one.name === column);
    const group = element("div", { role: "group", "aria-label": verse.labels[column] });
    group.append(element("h2", { title: about ? about.description : "Disagreements and oddities that `verse-data findings` lists" }, verse.labels[column]));
    for (const word of words) {
      const title = this.title(column, word);
      const box = element("input", { type: "checkbox", "data-facet": column, "data-word": word });
      const number = element("b");
      const label = element("label", { title }, box, element("span", {}, title), number);
      box.addEventListener("change", () => onToggle(column, word));
      this.boxes.push({ column, word, box, label, number });
      group.append(label);
    }
    return [group];
  }

  /** Draw the bars: by level and grade, by type, by age and by bone density; a click filters. */
  drawOverview(place, others, onToggle) {
    const charts = this.table.name === "vertebrae"
      ? [["level", "Level and grade", "vertebrae"], ["fracture_type", "Type", "vertebrae"], ["age_years", "Age", "patients"], ["bmd_mg_cm3", "BMD", "patients"]]
      : [["ct_device", "Device", this.table.name], ["max_grade", "Highest grade", this.table.name], ["age_years", "Age", "patients"], ["bmd_mg_cm3", "BMD", "patients"]];
    const focused = document.activeElement.id;
    const known = charts.filter(([column]) => this.order(column).some((word) => word !== MISSING && word !== "none"));
    place.replaceChildren(...known.map(([column, title, what]) => this.chart(column, title, what, others[column], onToggle)));
    if (focused && focused.startsWith("bar-")) document.getElementById(focused)?.focus();
  }

  chart(column, title, what, rows, onToggle) {
    const { words, cells, facets } = this.table;
    const stacked = column === "level";
    const skipped = stacked ? [] : [MISSING, ...(column === "fracture_type" ? ["none"] : [])];
    const shown = this.order(column).filter((word) => !skipped.includes(word));
    const sums = new Map(shown.map((word) => [word, { all: new Set(), parts: [0, 0, 0, 0, 0] }]));
    for (const row of rows) {
      for (const word of words[column][row]) {
        const sum = sums.get(word);
        if (!sum) continue;
        sum.all.add(what === "patients" ? cells.subject_id[row] : row);
        if (stacked) sum.parts[cells.grade[row] === null ? 4 : cells.grade[row]] += 1;
      }
    }
    const most = Math.max(1, ...[...sums.values()].map((sum) => sum.all.size));
    const bars = element("div", { class: "bars" });
    for (const [word, { all, parts }] of sums) {
      const chosen = !!facets[column] && facets[column].has(word);
      const grades = stacked ? parts.slice(1, 4).map((count, at) => (count ? `, ${count} of grade ${at + 1}` : "")).join("") : "";
      const name = `${verse.labels[column]} ${this.title(column, word)}: ${all.size} ${what}${grades}`;
      const bar = element("button", { type: "button", "aria-pressed": String(chosen), "aria-label": name, title: name, id: `bar-${column}-${word}` });
      const stack = element("span", { class: "column" });
      const pieces = stacked ? [3, 2, 1, 0, 4].map((grade) => [parts[grade], grade < 4 ? `g${grade}` : ""]) : [[all.size, ""]];
      for (const [count, kind] of pieces) {
        const piece = element("i", { class: kind });
        piece.style.height = `${(100 * count) / most}%`;
        if (count) stack.append(piece);
      }
      const small = element("small", {}, ...(stacked ? [word[0], element("br"), word.slice(1)] : [word]));
      bar.append(stack, small);
      bar.addEventListener("click", () => onToggle(column, word));
      bars.append(bar);
    }
    const head = element("h2", {}, title, " ");
    const key = element("span", { class: "key" });
    if (stacked) {
      for (const grade of [0, 1, 2, 3]) key.append(element("i", { class: `g${grade}` }), String(grade));
      const other = element("i"); other.style.background = "var(--bar)";
      key.append(other, "not graded");
    } else key.append(`(${what})`);
    head.append(key);
    return element("div", { class: "chart", role: "group", "aria-label": title }, head, bars);
  }
};
