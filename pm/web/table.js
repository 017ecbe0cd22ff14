// SPDX-License-Identifier: Apache-2.0
// Every table of the page. Text wraps, figures stand to the right; where there is no room for the columns, those
// that matter least go, and then each row is a card. So nothing is ever beside the screen.

import { html, useRef, useState } from "./dom.js";

const nothing = () => undefined;

// `columns`: [{name, cell(row, more), number, row, title, width, least, wide, sort(row), hidden}]
// - `row`: this cell names its row. `least`: goes first. `wide`: has a line of the card for itself.
// - `width` in pixels, so that what changes does not move the others. `hidden`: the name is for screen readers.
// `useRow(row, element)` is a hook for what a row needs besides; it is the `more` of its cells.
export function Table({ label, columns, rows, keyOf, rowClass = nothing, useRow = nothing }) {
  const [order, setOrder] = useState(null); // {column, descending}
  const shown = order ? sorted(rows, order) : rows;
  return html`<div class="table-frame">
    <table role="table" aria-label=${label}>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map((column) => html`<${Heading} key=${column.name} column=${column} order=${order} setOrder=${setOrder} />`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${shown.map(
          (row) => html`<${Row} key=${keyOf(row)} row=${row} columns=${columns} names=${rowClass(row)} useRow=${useRow} />`,
        )}
      </tbody>
    </table>
  </div>`;
}

function sorted(rows, { column, descending }) {
  const found = rows.map((row) => [column.sort(row), row]);
  const sign = descending ? -1 : 1;
  found.sort(([a], [b]) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1; // what is not known comes last, either way
    if (b === null || b === undefined) return -1;
    return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  });
  return found.map(([, row]) => row);
}

const names = (column) =>
  [column.number && "n", column.least && "least", column.wide && "own-line"].filter(Boolean).join(" ");

function Heading({ column, order, setOrder }) {
  const { name, title, width } = column;
  const mine = order?.column.name === name ? order : null;
  // Large numbers and the first letters first; then the other way round; then as the service has them.
  const press = () => {
    const first = { column, descending: Boolean(column.number) };
    if (!mine) setOrder(first);
    else setOrder(mine.descending === first.descending ? { column, descending: !mine.descending } : null);
  };
  const direction = mine ? (mine.descending ? "descending" : "ascending") : "none";
  return html`<th
    role="columnheader"
    scope="col"
    class=${names(column)}
    title=${title}
    style=${width ? { width: `${width}px` } : undefined}
    aria-sort=${column.sort ? direction : undefined}
  >
    ${
      column.sort
        ? html`<button type="button" class=${`sort ${direction}`} onClick=${press}>${name}</button>`
        : html`<span class=${column.hidden ? "unseen" : undefined}>${name}</span>`
    }
  </th>`;
}

function Row({ row, columns, names: own, useRow }) {
  const element = useRef();
  const more = useRow(row, element);
  return html`<tr role="row" ref=${element} class=${own}>
    ${columns.map((column) =>
      column.row
        ? html`<th role="rowheader" key=${column.name} scope="row">${column.cell(row, more)}</th>`
        : html`<td role="cell" key=${column.name} class=${names(column)} data-label=${column.hidden ? undefined : column.name}>
          ${column.cell(row, more)}
        </td>`,
    )}
  </tr>`;
}
