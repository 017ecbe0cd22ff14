// SPDX-License-Identifier: Apache-2.0
// Which rows of a long list are in view. All rows have one height, which depends on the width of the screen.

import { useEffect, useLayoutEffect, useState } from "./dom.js";

const NARROW = matchMedia("(max-width: 760px)");
const ROW_PX = { wide: 36, narrow: 84 };
const BEYOND = 8; // rows above and below
const CALM_MS = 150;

// {first, last, height, fit, calm, show(index)}; `calm`: nobody scrolls at the moment.
export function useWindow(ref, total) {
  const [narrow, setNarrow] = useState(NARROW.matches);
  const [seen, setSeen] = useState({ top: 0, space: 600 });
  const [calm, setCalm] = useState(true);
  const height = narrow ? ROW_PX.narrow : ROW_PX.wide;
  useEffect(() => {
    const change = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", change);
    return () => NARROW.removeEventListener("change", change);
  }, []);
  const element = ref.current;
  const [, ready] = useState(false);
  useLayoutEffect(() => ready(Boolean(ref.current)));
  useEffect(() => {
    if (!element) return undefined;
    let frame = 0;
    let timer = 0;
    const look = () => {
      frame = 0;
      setSeen({ top: element.scrollTop, space: element.clientHeight });
    };
    const soon = () => {
      frame ||= requestAnimationFrame(look);
      setCalm(false);
      clearTimeout(timer);
      timer = setTimeout(() => setCalm(true), CALM_MS);
    };
    element.addEventListener("scroll", soon, { passive: true });
    const watch = new ResizeObserver(soon);
    watch.observe(element);
    look();
    return () => {
      element.removeEventListener("scroll", soon);
      watch.disconnect();
      cancelAnimationFrame(frame);
      clearTimeout(timer);
      setCalm(true);
    };
  }, [element]);
  const fit = Math.max(1, Math.floor(seen.space / height) - 1);
  const top = Math.min(seen.top, Math.max(0, total * height - seen.space));
  return {
    height,
    fit,
    calm,
    first: Math.max(0, Math.floor(top / height) - BEYOND),
    last: Math.ceil((top + seen.space) / height) + BEYOND,
    show: (index) => reveal(element, index * height, height),
  };
}

// The header stays in place over the first row.
function reveal(element, top, height) {
  if (!element) return;
  const header = element.querySelector(".grid-head")?.offsetHeight ?? 0;
  if (top < element.scrollTop) element.scrollTop = top;
  else if (top + height + header > element.scrollTop + element.clientHeight) {
    element.scrollTop = top + height + header - element.clientHeight;
  }
}
