// SPDX-License-Identifier: Apache-2.0
// Whether an element is on the screen, or about to be.

import { useEffect, useState } from "./dom.js";

const MARGIN = "120px 0px";
const told = new Map(); // by element
let observer = null;

function watch(element, tell) {
  observer ??= new IntersectionObserver(
    (entries) => entries.forEach((entry) => told.get(entry.target)?.(entry.isIntersecting)),
    { rootMargin: MARGIN },
  );
  told.set(element, tell);
  observer.observe(element);
  return () => {
    observer.unobserve(element);
    told.delete(element);
  };
}

export function useInView(ref) {
  const [inView, setInView] = useState(false);
  useEffect(() => watch(ref.current, setInView), []);
  return inView;
}
