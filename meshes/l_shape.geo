// The square [-1, 1]² without its quarter x > 0, y < 0: the simplest domain with a re-entrant corner.
Mesh.MshFileVersion = 2.2;
h = 0.09;

Point(1) = {0, 0, 0, h / 2};
Point(2) = {0, -1, 0, h};
Point(3) = {-1, -1, 0, h};
Point(4) = {-1, 1, 0, h};
Point(5) = {1, 1, 0, h};
Point(6) = {1, 0, 0, h};
Line(1) = {1, 6};
Line(2) = {6, 5};
Line(3) = {5, 4};
Line(4) = {4, 3};
Line(5) = {3, 2};
Line(6) = {2, 1};
Curve Loop(1) = {1, 2, 3, 4, 5, 6};
Plane Surface(1) = {1};

Physical Surface("domain", 1) = {1};
Physical Curve("outer", 2) = {2, 3, 4, 5};
Physical Curve("corner", 3) = {1, 6};
