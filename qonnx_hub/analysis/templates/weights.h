/* Integer weights: value = (integer - zero_point) * scale. Arrays are in row-major
   order; scales and zero points of more than one element broadcast to them. */
#ifndef {{ guard }}
#define {{ guard }}

#include <stdint.h>
{% for one in weights %}

/* {{ one.weight.name|title }}: {{ one.weight.integers.shape|join(" x ") or "scalar" }}, {{ one.weight.bits }} bits, {{ "signed" if one.weight.signed else "unsigned" }} */
#define {{ one.name }}_BITS {{ one.weight.bits }}
#define {{ one.name }}_SIZE {{ one.weight.integers.size }}
{% for kind, name, shape, lines in one.arrays %}
{% if shape %}
/* {{ shape }} */
{% endif %}
static const {{ kind }} {{ name }} = {
{% for line in lines %}
    {{ line }},
{% endfor %}
};
{% endfor %}
{% endfor %}

#endif /* {{ guard }} */
