// A term's definition beside its link, while the mouse is on it or the Tab key has reached it.
{
  const tip = Object.assign(document.createElement("div"), { id: "term-tip", role: "tooltip" });
  let shown, leaving;
  const hide = () => {
    shown?.removeAttribute("aria-describedby");
    shown = null;
    tip.remove();
  };
  const place = () => {
    const [line] = shown.getClientRects();
    const { width, height } = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - width - 8;
    const above = line.bottom + height + 8 > innerHeight && line.top > height + 8;
    tip.style.left = `${scrollX + Math.max(8, Math.min(line.left, right))}px`;
    tip.style.top = `${scrollY + (above ? line.top - height - 4 : line.bottom + 4)}px`;
  };
  const definition = (link) => window.DEFINITIONS?.[link?.hash.slice(1)];
  const show = (link) => {
    if (!definition(link) || link === shown) return;
    hide();
    shown = link;
    tip.innerHTML = definition(link);
    document.body.append(tip);
    link.setAttribute("aria-describedby", tip.id);
    place();
    window.MathJax?.typesetPromise?.([tip]).then(() => link === shown && place());
  };
  document.addEventListener("pointerover", ({ target, pointerType }) => {
    if (pointerType !== "mouse") return; // a finger follows the link
    clearTimeout(leaving);
    const link = target.closest("a.reference[href*='#term-']");
    if (link) show(link);
    else if (shown && !tip.contains(target)) leaving = setTimeout(hide, 200); // to reach the tip
  });
  document.addEventListener("focusin", (e) => e.target.matches("a.reference:focus-visible") && show(e.target));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}
