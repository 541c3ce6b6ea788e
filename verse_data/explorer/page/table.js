/* A table of thousands of rows, of which only those in sight exist as elements. */
"use strict";

verse.Table = class {
  /** `onChoose` is called with a row's number, `onSort` with the column and whether it runs down. */
  constructor(place, onChoose, onSort) {
    Object.assign(this, { onChoose, onSort, height: 25, order: [], drawn: [], chosen: -1 });
    this.root = element("div", { class: "table", role: "grid", tabindex: "0", "aria-label": "Rows" });
    this.head = element("div", { class: "head", role: "rowgroup" });
    this.rows = element("div", { class: "rows", role: "rowgroup" });
    this.root.append(this.head, this.rows);
    place.append(this.root);
    this.root.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.root);
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-at]");
      if (row) { this.root.focus(); this.choose(Number(row.dataset.at)); }
    });
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show a table: `columns` have name, kind, title, width and a function `cell` from row to text or node. */
  setTable(columns, name, sort) {
    this.columns = columns;
    this.root.setAttribute("aria-label", name);
    this.grid = columns.map((column) => `minmax(${column.width}px, ${column.width}fr)`).join(" ");
    const wide = `${columns.reduce((sum, column) => sum + column.width, 0)}px`;
    this.head.style.minWidth = this.rows.style.minWidth = wide;
    const row = element("div", { class: "row", role: "row" });
    row.style.gridTemplateColumns = this.grid;
    for (const column of columns) {
      const button = element("button", { type: "button", title: column.title }, column.label);
      const cell = element("div", { role: "columnheader", class: column.kind === "number" ? "number" : "" });
      button.addEventListener("click", () => this.sortBy(column.name));
      cell.append(button);
      row.append(cell);
    }
    this.head.replaceChildren(row);
    this.rows.replaceChildren();
    [this.order, this.drawn] = [[], []];
    this.sort = sort;
    this.root.scrollTop = 0;
  }

  /** Height in which rows are seen, below the heading that stays. */
  get shownHeight() { return this.root.clientHeight - this.head.offsetHeight; }

  sortBy(name) {
    const same = this.sort.column === name;
    this.sort = same && this.sort.down ? { column: null, down: false } : { column: name, down: same };
    this.setRows(this.given, this.current);
    this.onSort(this.sort);
  }

  /** Show these rows, by their number, in the chosen order; keep the chosen row if it is among them. */
  setRows(given, current) {
    this.given = given;
    this.current = current;
    const column = this.columns.find((one) => one.name === this.sort.column);
    this.order = given;
    if (column) {
      const sign = this.sort.down ? -1 : 1;
      const compare = (a, b) => {
        const [x, y] = [column.value(a), column.value(b)];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      };
      this.order = [...given].sort(compare);
    }
    [...this.head.querySelectorAll("[role=columnheader]")].forEach((cell, at) => {
      const here = this.columns[at].name === this.sort.column;
      cell.setAttribute("aria-sort", here ? (this.sort.down ? "descending" : "ascending") : "none");
    });
    this.chosen = this.order.indexOf(current);
    // Read before anything is written, as each reading after that lays the whole page out.
    const shown = this.shownHeight;
    const top = Math.min(this.root.scrollTop, Math.max(0, this.order.length * this.height - shown));
    this.root.setAttribute("aria-rowcount", this.order.length + 1);
    this.rows.style.height = `${this.order.length * this.height}px`;
    this.draw(true, top, shown);
  }

  draw(all, top = this.root.scrollTop, height = this.shownHeight) {
    const first = Math.max(0, Math.floor(top / this.height) - 4);
    const last = Math.min(this.order.length, first + Math.ceil(height / this.height) + 8);
    if (!all && first === this.first && last === this.last) return;
    if (first !== this.first) this.drawn = []; // a row that moves is no other row meanwhile
    [this.first, this.last] = [first, last];
    while (this.drawn.length < last - first) this.drawn.push(this.blank());
    for (let at = first; at < last; at++) this.fill(this.drawn[at - first], at);
    if (this.rows.firstChild !== this.drawn[0] || this.rows.childElementCount !== last - first) this.rows.replaceChildren(...this.drawn.slice(0, last - first));
    if (this.chosen >= first && this.chosen < last) this.root.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    else this.root.removeAttribute("aria-activedescendant");
  }

  /** A row of empty cells; rows are filled again rather than made again, which takes several times as long. */
  blank() {
    const row = element("div", { class: "row", role: "row" });
    row.style.gridTemplateColumns = this.grid;
    for (const { kind } of this.columns) row.append(element("div", { role: "gridcell", class: kind === "number" ? "number" : "" }));
    return row;
  }

  fill(row, at) {
    Object.assign(row, { id: `row-${at}`, ariaRowIndex: at + 2, ariaSelected: at === this.chosen });
    row.dataset.at = at;
    row.style.top = `${at * this.height}px`;
    this.columns.forEach((column, place) => {
      const cell = column.cell(this.order[at]);
      if (typeof cell === "string" && row.children[place].textContent === cell) return;
      row.children[place].replaceChildren(cell === null ? missing() : cell);
    });
  }

  /** Choose the row at a place of the order, and bring it into sight. */
  choose(at) {
    if (!this.order.length) return;
    this.chosen = Math.max(0, Math.min(this.order.length - 1, at));
    this.current = this.order[this.chosen];
    this.show();
    this.onChoose(this.current);
  }

  /** Bring the chosen row into sight. */
  show() {
    if (this.chosen < 0) return;
    const top = this.chosen * this.height;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    const bottom = top + this.height - this.shownHeight;
    if (bottom > this.root.scrollTop) this.root.scrollTop = bottom;
    this.draw(true);
  }

  move(steps) { this.choose(this.chosen < 0 ? 0 : this.chosen + steps); }

  key(event) {
    if (event.target !== this.root) return; // a button of the head has keys of its own
    const page = Math.max(1, Math.floor(this.shownHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(this.order.length - 1);
    else if (event.key === "Enter" && this.chosen >= 0) this.choose(this.chosen);
    else return;
    event.preventDefault();
  }
};

/** Make an element with attributes, and text or nodes within. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function missing() { return element("span", { class: "missing" }, "–"); }
