// What a person would stumble over on a page: returns one line for each such place.
() => {
  const found = [];
  const root = document.documentElement;
  const name = (e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") ?? ""}`
    + ` "${(e.textContent ?? "").trim().slice(0, 40)}"`;
  if (root.scrollWidth > root.clientWidth) found.push(`page: ${root.scrollWidth} px wide`);
  const numbers = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (e) => {
    const box = e.closest(".box");
    if (e.tagName === "text" && box) return numbers(getComputedStyle(box.querySelector("rect")).fill);
    for (let at = e; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const scrolls = (e) => e.closest(".scroll") !== null;
  for (const e of document.body.querySelectorAll("*")) {
    if (e.closest("script, title") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), place = e.getBoundingClientRect();
    if (!scrolls(e) && place.right > root.clientWidth + 1) found.push(`beyond the edge: ${name(e)}`);
    if (style.overflowX !== "visible" && !e.matches(".scroll, svg")
        && e.scrollWidth > e.clientWidth + 1) found.push(`clipped: ${name(e)}`);
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own) continue;
    if (e.tagName === "text") {
      const frame = e.closest(".box")?.querySelector("rect") ?? e.ownerSVGElement;
      const outer = frame.getBoundingClientRect();
      if (place.left < outer.left - 1 || place.right > outer.right + 1
          || place.top < outer.top - 1 || place.bottom > outer.bottom + 1)
        found.push(`text outside its picture: ${name(e)}`);
    }
    const ink = numbers(e.tagName === "text" ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const large = size >= 24 || (size >= 18.66 && bold);
    if (contrast < (large ? 3 : 4.5)) found.push(`contrast ${contrast.toFixed(2)}: ${name(e)}`);
  }
  return [...new Set(found)];
}
