<?php

return ['defaults' => ['guard' => 'api'], 'guards' => ['api' => ['driver' => 'bearer']], 'providers' => []];
